package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	systemddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// systemd makes slices by systemd's private socket, which root can use without a
// message bus. The connection is made at the first use.
type systemd struct {
	unified bool

	// dial connects to systemd; nil: by its private socket.
	dial func(ctx context.Context) (units, error)

	mu   sync.Mutex // guards conn
	conn units
}

// units is what is asked of systemd.
type units interface {
	StartTransientUnitContext(ctx context.Context, name, mode string, properties []systemddbus.Property, done chan<- string) (int, error)
	SetUnitPropertiesContext(ctx context.Context, name string, runtime bool, properties ...systemddbus.Property) error
	StopUnitContext(ctx context.Context, name, mode string, done chan<- string) (int, error)
	ResetFailedUnitContext(ctx context.Context, name string) error
	Connected() bool
	Close()
}

func dialSystemd(ctx context.Context) (units, error) {
	return systemddbus.NewSystemdConnectionContext(ctx)
}

func (s *systemd) connect(ctx context.Context) (units, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.Connected() {
		return s.conn, nil
	}
	if s.conn != nil {
		s.conn.Close()
	}
	dial := s.dial
	if dial == nil {
		dial = dialSystemd
	}
	conn, err := dial(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	s.conn = conn
	return conn, nil
}

func (s *systemd) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// set starts the slice, or changes it when it runs.
func (s *systemd) set(ctx context.Context, slice string, r Resources) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	limits := s.properties(r)
	// systemd refuses Delegate for slices; the containers' scopes have it.
	start := append([]systemddbus.Property{
		systemddbus.PropDescription("Kubernetes pods: " + slice),
		property("DefaultDependencies", false),
		property("CPUAccounting", true),
		property("MemoryAccounting", true),
		property("TasksAccounting", true),
		property("IOAccounting", true),
	}, limits...)
	done := make(chan string, 1)
	_, err = conn.StartTransientUnitContext(ctx, slice, "replace", start, done)
	var dbusErr dbus.Error
	if errors.As(err, &dbusErr) && dbusErr.Name == "org.freedesktop.systemd1.UnitExists" {
		if len(limits) == 0 {
			return nil
		}
		return conn.SetUnitPropertiesContext(ctx, slice, true, limits...)
	}
	if err != nil {
		return err
	}
	return wait(ctx, slice, done)
}

func (s *systemd) remove(ctx context.Context, slice string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	done := make(chan string, 1)
	if _, err := conn.StopUnitContext(ctx, slice, "replace", done); err != nil {
		var dbusErr dbus.Error
		if errors.As(err, &dbusErr) && dbusErr.Name == "org.freedesktop.systemd1.NoSuchUnit" {
			return nil
		}
		return err
	}
	if err := wait(ctx, slice, done); err != nil {
		return err
	}
	// A slice that failed once would be kept by systemd for ever; success has nothing to reset.
	_ = conn.ResetFailedUnitContext(ctx, slice)
	return nil
}

func wait(ctx context.Context, slice string, done <-chan string) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("systemd's job for %s ended as %q", slice, result)
		}
		return nil
	}
}

func property(name string, value any) systemddbus.Property {
	return systemddbus.Property{Name: name, Value: dbus.MakeVariant(value)}
}

// properties are the limits in systemd's words, which differ between cgroup versions.
func (s *systemd) properties(r Resources) []systemddbus.Property {
	var p []systemddbus.Property
	if r.CPUShares > 0 {
		if s.unified {
			p = append(p, property("CPUWeight", Weight(r.CPUShares)))
		} else {
			p = append(p, property("CPUShares", r.CPUShares))
		}
	}
	const infinity = ^uint64(0)
	if r.CPUQuota != 0 {
		perSecond := infinity
		if r.CPUQuota > 0 {
			// systemd keeps whole percents: round up, never below what was asked.
			perSecond = uint64(r.CPUQuota) * 1000000 / r.period()
			perSecond = (perSecond + 9999) / 10000 * 10000
		}
		p = append(p, property("CPUQuotaPerSecUSec", perSecond))
	}
	if r.MemoryLimit != 0 {
		limit := infinity
		if r.MemoryLimit > 0 {
			limit = uint64(r.MemoryLimit)
		}
		if s.unified {
			p = append(p, property("MemoryMax", limit))
		} else {
			p = append(p, property("MemoryLimit", limit))
		}
	}
	if r.PidsLimit != 0 {
		limit := infinity
		if r.PidsLimit > 0 {
			limit = uint64(r.PidsLimit)
		}
		p = append(p, property("TasksMax", limit))
	}
	return p
}

// SliceName is systemd's name for a cgroup in cgroupfs syntax:
// /kubepods/burstable/pod1-2 is kubepods-burstable-pod1_2.slice. A name that is a slice's already stays.
func SliceName(name string) string {
	name = strings.Trim(name, "/")
	if strings.HasSuffix(name, ".slice") {
		return path.Base(name)
	}
	if name == "" {
		return "-.slice"
	}
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = strings.ReplaceAll(part, "-", "_")
	}
	return strings.Join(parts, "-") + ".slice"
}

// slicePath is where systemd puts a slice: every dash is a level.
func slicePath(slice string) string {
	name := strings.TrimSuffix(slice, ".slice")
	if name == "-" || name == "" {
		return "/"
	}
	dir, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		prefix += part
		dir = path.Join(dir, prefix+".slice")
		prefix += "-"
	}
	return dir
}
