package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/fsnotify/fsnotify"
	"k8s.io/client-go/kubernetes"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// callLimit bounds one call while a driver registers.
	callLimit = 10 * time.Second
	// firstRetry and lastRetry space the attempts to register one socket.
	firstRetry = 500 * time.Millisecond
	lastRetry  = time.Minute
	// rescan is the safety net under the notifications of the folder.
	rescan = time.Minute
)

// Registry keeps the drivers of this node.
type Registry struct {
	Client kubernetes.Interface
	Node   string
	// Dir holds the registration sockets: plugins_registry.
	Dir string
	// NodeKnown says whether the API has the node, which drivers are written
	// down for. A driver that is told of a failure may give up, so none is asked
	// before.
	NodeKnown func() bool
	Logger    *slog.Logger

	// mu guards drivers, by name.
	mu      sync.Mutex
	drivers map[string]*Driver
}

// Driver returns a registered driver.
func (r *Registry) Driver(name string) (*Driver, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.drivers[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
}

// attempt is when a socket that could not be registered is tried again.
type attempt struct {
	delay time.Duration
	at    time.Time
}

// Run registers drivers as their sockets come, until ctx ends.
func (r *Registry) Run(ctx context.Context) {
	defer r.closeAll()
	if err := os.MkdirAll(r.Dir, 0o750); err != nil {
		r.Logger.Error("CSI drivers cannot register", "error", err)
		return
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		r.Logger.Error("CSI drivers are found by looking only", "error", err)
	} else {
		defer watcher.Close()
		if err := watcher.Add(r.Dir); err != nil {
			r.Logger.Error("CSI drivers are found by looking only", "error", err)
		}
	}
	failed := map[string]attempt{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var events chan fsnotify.Event
		if watcher != nil {
			events = watcher.Events
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-events:
		}
		timer.Reset(r.scan(ctx, failed))
	}
}

// scan brings the drivers in line with the sockets, and returns when to look again.
func (r *Registry) scan(ctx context.Context, failed map[string]attempt) time.Duration {
	if !r.NodeKnown() {
		return firstRetry
	}
	sockets, err := sockets(r.Dir)
	if err != nil {
		r.Logger.Warn("look for CSI drivers", "error", err)
		return lastRetry
	}
	r.dropMissing(ctx, sockets)
	next := rescan
	now := time.Now()
	for socket := range failed {
		if !slices.Contains(sockets, socket) {
			delete(failed, socket)
		}
	}
	for _, socket := range sockets {
		if r.registered(socket) {
			continue
		}
		last := failed[socket]
		if wait := last.at.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		if err := r.register(ctx, socket); err != nil {
			if ctx.Err() != nil {
				return rescan
			}
			r.Logger.Warn("register a plugin; trying again", "socket", socket, "error", err)
			delay := min(max(2*last.delay, firstRetry), lastRetry)
			failed[socket] = attempt{delay, now.Add(delay)}
			next = min(next, delay)
			continue
		}
		delete(failed, socket)
	}
	return next
}

// sockets lists the sockets in a folder and the folders in it.
func sockets(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry.Type()&fs.ModeSocket != 0 && !strings.HasPrefix(entry.Name(), ".") {
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

func (r *Registry) registered(socket string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.drivers {
		if d.socket == socket {
			return true
		}
	}
	return false
}

// dropMissing forgets the drivers whose sockets are gone.
func (r *Registry) dropMissing(ctx context.Context, sockets []string) {
	r.mu.Lock()
	var gone []*Driver
	for name, d := range r.drivers {
		if !slices.Contains(sockets, d.socket) {
			gone = append(gone, d)
			delete(r.drivers, name)
		}
	}
	r.mu.Unlock()
	for _, d := range gone {
		d.close()
		r.Logger.Info("CSI driver is gone", "driver", d.Name)
		if err := r.withdraw(ctx, d.Name); err != nil && ctx.Err() == nil {
			r.Logger.Warn("take a driver out of the CSINode object", "driver", d.Name, "error", err)
		}
	}
}

// register asks who is behind a socket, and tells it what came of it.
func (r *Registry) register(ctx context.Context, socket string) error {
	conn, err := dial(socket)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	client := registration.NewRegistrationClient(conn)
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	info, err := client.GetInfo(call, &registration.InfoRequest{})
	if err != nil {
		return fmt.Errorf("ask who it is: %w", err)
	}
	if info.GetType() != registration.CSIPlugin {
		// Devices register elsewhere.
		return nil
	}
	err = r.accept(ctx, socket, info)
	status := &registration.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		status.Error = fmt.Sprintf("RegisterPlugin error -- plugin registration failed with err: %v", err)
	}
	notify, cancelNotify := context.WithTimeout(ctx, callLimit)
	defer cancelNotify()
	if _, notifyErr := client.NotifyRegistrationStatus(notify, status); notifyErr != nil && err == nil {
		return fmt.Errorf("tell driver %s that it is registered: %w", info.GetName(), notifyErr)
	}
	return err
}

func (r *Registry) accept(ctx context.Context, socket string, info *registration.PluginInfo) error {
	if !slices.ContainsFunc(info.GetSupportedVersions(), func(v string) bool { return strings.HasPrefix(strings.TrimPrefix(v, "v"), "1.") }) {
		return fmt.Errorf("driver %s supports versions %q, this node 1.x", info.GetName(), info.GetSupportedVersions())
	}
	endpoint := info.GetEndpoint()
	if endpoint == "" {
		endpoint = socket
	}
	driver, err := newDriver(info.GetName(), socket, endpoint)
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if driver.Info, err = driver.node.NodeGetInfo(call, &csi.NodeGetInfoRequest{}); err == nil {
		err = r.announce(ctx, driver)
	}
	if err != nil {
		driver.close()
		return err
	}
	r.mu.Lock()
	if r.drivers == nil {
		r.drivers = map[string]*Driver{}
	}
	old := r.drivers[driver.Name]
	r.drivers[driver.Name] = driver
	r.mu.Unlock()
	if old != nil {
		old.close()
	}
	r.Logger.Info("CSI driver registered", "driver", driver.Name, "nodeID", driver.Info.GetNodeId())
	return nil
}

func (r *Registry) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.drivers {
		d.close()
	}
	r.drivers = nil
}
