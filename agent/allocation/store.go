package allocation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// entry is one pod's file.
type entry struct {
	Allocated Resources `json:"allocated"`
	Actuated  Resources `json:"actuated"`
}

// Store keeps the entries of all pods in memory and on disk. Its methods may be called by many goroutines.
type Store struct {
	dir    string
	logger *slog.Logger

	// mu guards pods.
	mu   sync.Mutex
	pods map[types.UID]entry
}

const suffix = ".json"

// Open reads what is stored in dir, which it makes. A file that cannot be read is left out with a
// warning: the pod's spec is then taken for what was allocated.
func Open(dir string, logger *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of allocations: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list allocations: %w", err)
	}
	s := &Store{dir: dir, logger: logger, pods: map[types.UID]entry{}}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		uid, ok := strings.CutSuffix(f.Name(), suffix)
		if !ok {
			// The temporary file of an agent that was killed while it wrote.
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("remove the remains of an allocation: %w", err)
			}
			continue
		}
		var e entry
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		if err != nil {
			logger.Warn("what was allocated to a pod is lost; its spec counts", "uid", uid, "error", err)
			continue
		}
		s.pods[types.UID(uid)] = e
	}
	return s, nil
}

// Allocated returns the pod with the allocated amounts in its spec; known is false when nothing was
// allocated to it.
func (s *Store) Allocated(pod *v1.Pod) (allocated *v1.Pod, known bool) {
	s.mu.Lock()
	e, known := s.pods[pod.UID]
	s.mu.Unlock()
	if !known {
		return pod, false
	}
	return e.Allocated.Apply(pod), true
}

// Actuated returns what is in force of the pod's resources.
func (s *Store) Actuated(uid types.UID) (Resources, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.pods[uid]
	return e.Actuated, known
}

// Admit allocates what the spec of a new pod asks for.
func (s *Store) Admit(pod *v1.Pod) error {
	r := Of(pod)
	return s.put(pod.UID, entry{Allocated: r, Actuated: r})
}

// Resize allocates what the pod's spec asks for now.
func (s *Store) Resize(pod *v1.Pod) error {
	s.mu.Lock()
	e := s.pods[pod.UID]
	s.mu.Unlock()
	e.Allocated = Of(pod)
	return s.put(pod.UID, e)
}

// Actuate notes what is in force.
func (s *Store) Actuate(uid types.UID, r Resources) error {
	s.mu.Lock()
	e, known := s.pods[uid]
	s.mu.Unlock()
	if !known || (e.Actuated.Equal(r) && len(e.Actuated.Containers) == len(r.Containers)) {
		return nil
	}
	e.Actuated = r
	return s.put(uid, e)
}

// ActuateContainer notes what is in force in one container.
func (s *Store) ActuateContainer(uid types.UID, container string, amounts v1.ResourceRequirements) error {
	actuated, known := s.Actuated(uid)
	if !known {
		return nil
	}
	return s.Actuate(uid, actuated.With(container, amounts))
}

// put stores the entry on disk first: what was promised must not be forgotten. There is one writer
// per pod, its worker or the pool, never both at a time.
func (s *Store) put(uid types.UID, e entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode the allocation of pod %s: %w", uid, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(uid)
	temporary := path + ".new"
	// Not synced: after a crash of the machine no container runs, and specs count again.
	err = os.WriteFile(temporary, data, 0o600)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return fmt.Errorf("store the allocation of pod %s: %w", uid, err)
	}
	s.pods[uid] = e
	return nil
}

// Forget drops what was allocated to the pod.
func (s *Store) Forget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.pods[uid]; !known {
		return
	}
	delete(s.pods, uid)
	if err := os.Remove(s.path(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Warn("remove a pod's allocation", "uid", uid, "error", err)
	}
}

// Keep drops what was allocated to pods that are not known any more.
func (s *Store) Keep(known func(types.UID) bool) {
	s.mu.Lock()
	var gone []types.UID
	for uid := range s.pods {
		if !known(uid) {
			gone = append(gone, uid)
		}
	}
	s.mu.Unlock()
	for _, uid := range gone {
		s.Forget(uid)
	}
}

func (s *Store) path(uid types.UID) string { return filepath.Join(s.dir, string(uid)+suffix) }
