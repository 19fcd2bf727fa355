package runtime

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/cgroup"
	"github.com/skiff-run/skiff/runtime/namespace"
	"github.com/skiff-run/skiff/runtime/network"
)

// sandbox is a pod's frame: its namespaces, network and files.
//
// Its record is one JSON file in the state folder and not a containerd object,
// because nothing in it is containerd's: the namespaces and the address are made by
// this process, must be found and released also while containerd is down, and a
// file is one sync where a containerd object would be a container without an image.
type sandbox struct {
	id        string
	config    *runtimeapi.PodSandboxConfig // never changed
	handler   string
	createdAt time.Time
	addresses []netip.Addr       // never changed once the sandbox is published
	users     *namespace.Mapping // of its own user namespace, nil without; never changed

	op sync.Mutex // held while the sandbox is stopped or removed

	// shim is held for writing while a task is deleted: with a pod's last task its
	// shim ends, and a task that is created meanwhile would be given to a dying shim.
	// Who creates a task holds it for reading.
	shim sync.RWMutex

	mu      sync.Mutex // guards what follows
	ready   bool
	initPID uint32 // of the process that holds a shared PID namespace

	cpu cgroup.CPURate
}

// sandboxRecord is what the file says.
type sandboxRecord struct {
	ID        string          `json:"id"`
	Config    json.RawMessage `json:"config"`
	Handler   string          `json:"handler,omitempty"`
	CreatedAt time.Time       `json:"createdAt"`
	Addresses []netip.Addr    `json:"addresses,omitempty"`
	// Users of a user namespace of its own.
	Users   *namespace.Mapping `json:"users,omitempty"`
	BootID  string             `json:"bootID"`
	Stopped bool               `json:"stopped,omitempty"`
}

func newID() (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make ID: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

func (s *sandbox) state() runtimeapi.PodSandboxState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func (s *sandbox) namespaces() *runtimeapi.NamespaceOption {
	return s.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

func (s *sandbox) hostNetwork() bool {
	return s.namespaces().GetNetwork() == runtimeapi.NamespaceMode_NODE
}

func (s *sandbox) hostIPC() bool { return s.namespaces().GetIpc() == runtimeapi.NamespaceMode_NODE }

// sharedPID says that all containers see each other's processes, below an init process.
func (s *sandbox) sharedPID() bool {
	return s.config.GetLinux() != nil && s.namespaces().GetPid() == runtimeapi.NamespaceMode_POD && s.namespaces() != nil
}

// initID is the containerd container of the init process.
func (s *sandbox) initID() string { return s.id + "-init" }

// kinds are the namespaces the sandbox has of its own.
func (s *sandbox) kinds() []namespace.Kind {
	var kinds []namespace.Kind
	if !s.hostNetwork() {
		kinds = append(kinds, namespace.Net, namespace.UTS)
	}
	if !s.hostIPC() {
		kinds = append(kinds, namespace.IPC)
	}
	if s.users != nil {
		kinds = append(kinds, namespace.User)
	}
	return kinds
}

// pin is the path of a namespace, empty when the sandbox uses the host's.
func (r *Runtime) pin(s *sandbox, kind namespace.Kind) string {
	for _, k := range s.kinds() {
		if k == kind {
			return namespace.Path(r.sandboxRun(s.id), kind)
		}
	}
	return ""
}

func (s *sandbox) pod() network.Pod {
	pod := network.Pod{ID: s.id, Addresses: s.addresses}
	for _, p := range s.config.GetPortMappings() {
		if p.GetHostPort() <= 0 {
			continue
		}
		port := network.HostPort{Protocol: strings.ToLower(p.GetProtocol().String()), HostPort: uint16(p.GetHostPort()), PodPort: uint16(p.GetContainerPort())}
		if p.GetHostIp() != "" {
			port.HostIP, _ = netip.ParseAddr(p.GetHostIp()) // checked when the sandbox was made
		}
		pod.HostPorts = append(pod.HostPorts, port)
	}
	return pod
}

func (r *Runtime) recordPath(id string) string {
	return filepath.Join(r.sandboxRecords(), id+".json")
}

// writeRecord puts the record in place whole or not at all, and on the disk.
func (r *Runtime) writeRecord(s *sandbox, stopped bool) error {
	config, err := protojson.Marshal(s.config)
	if err != nil {
		return fmt.Errorf("record of pod sandbox %s: %w", s.id, err)
	}
	content, err := json.Marshal(sandboxRecord{
		ID: s.id, Config: config, Handler: s.handler, CreatedAt: s.createdAt, Addresses: s.addresses, Users: s.users, BootID: r.bootID, Stopped: stopped,
	})
	if err != nil {
		return fmt.Errorf("record of pod sandbox %s: %w", s.id, err)
	}
	if err := replaceFile(r.recordPath(s.id), content); err != nil {
		return fmt.Errorf("record of pod sandbox %s: %w", s.id, err)
	}
	return nil
}

func replaceFile(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// readRecords finds the sandboxes of earlier processes. A record that cannot be
// read is no reason to run nothing: what belonged to it is cleaned up as an orphan's.
func (r *Runtime) readRecords() error {
	entries, err := os.ReadDir(r.sandboxRecords())
	if err != nil {
		return fmt.Errorf("read sandbox records: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(r.sandboxRecords(), e.Name())
		if !strings.HasSuffix(e.Name(), ".json") {
			if strings.HasSuffix(e.Name(), ".new") {
				_ = os.Remove(path) // was being written
			}
			continue
		}
		s, err := r.readRecord(path)
		if err != nil {
			r.logger.Error("pod sandbox record is damaged and is dropped; its pod will be started anew", "file", path, "error", err)
			if err := os.Rename(path, path+".damaged"); err != nil {
				return fmt.Errorf("put damaged record aside: %w", err)
			}
			continue
		}
		r.sandboxes[s.id] = s
		if s.users != nil {
			r.userRanges[s.id] = *s.users
		}
	}
	return nil
}

func (r *Runtime) readRecord(path string) (*sandbox, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var record sandboxRecord
	if err := json.Unmarshal(content, &record); err != nil {
		return nil, err
	}
	config := &runtimeapi.PodSandboxConfig{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(record.Config, config); err != nil {
		return nil, err
	}
	if record.ID+".json" != filepath.Base(path) {
		return nil, fmt.Errorf("record is of sandbox %q", record.ID)
	}
	s := &sandbox{id: record.ID, config: config, handler: record.Handler, createdAt: record.CreatedAt, addresses: record.Addresses, users: record.Users}
	s.ready = !record.Stopped && record.BootID == r.bootID
	for _, kind := range s.kinds() {
		s.ready = s.ready && namespace.Pinned(namespace.Path(r.sandboxRun(s.id), kind))
	}
	return s, nil
}

func (r *Runtime) sandbox(id string) (*sandbox, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if s := r.sandboxes[id]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("pod sandbox %q: %w", id, ErrNotFound)
}
