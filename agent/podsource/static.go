package podsource

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Annotations of pods that come from a file, as the kubelet names them.
const (
	SourceAnnotation = "kubernetes.io/config.source"
	HashAnnotation   = "kubernetes.io/config.hash"
	SeenAnnotation   = "kubernetes.io/config.seen"
)

const (
	// settle is how long a directory must be quiet before it is read: editors
	// write in several steps.
	settle = 100 * time.Millisecond
	// reread is the safety net under the kernel's notifications.
	reread = 5 * time.Minute
)

// StaticPods receives the pods of the directory.
type StaticPods interface {
	Pods
	// Known says whether anything of a pod is still here.
	Known(uid types.UID) bool
}

// Static follows a directory of pod manifests.
type Static struct {
	dir, node string
	pods      StaticPods
	logger    *slog.Logger
	// current are the pods that were handed on, by namespace and name; leaving are
	// those that were taken back and may still be on their way out.
	current map[string]*v1.Pod
	leaving map[string]types.UID
	// told are the problems of files that were logged, so that they are once.
	told map[string]string
}

// NewStatic returns a source for the manifests in dir.
func NewStatic(dir, node string, pods StaticPods, logger *slog.Logger) *Static {
	return &Static{dir: dir, node: node, pods: pods, logger: logger, current: map[string]*v1.Pod{}, leaving: map[string]types.UID{}, told: map[string]string{}}
}

// Read looks at the directory once. The agent does it before it decides that
// running pods are orphans. It returns whether a pod waits for the end of one of
// the same name: a changed manifest is another pod, and the two must not run at
// the same time.
func (s *Static) Read() (waiting bool) {
	wanted, err := s.manifests()
	if err != nil {
		s.logger.Warn("read the static pods; those that run stay", "dir", s.dir, "error", err)
		return false
	}
	for name, pod := range s.current {
		if next := wanted[name]; next == nil || next.UID != pod.UID {
			delete(s.current, name)
			s.leaving[name] = pod.UID
			s.pods.Remove(pod.UID)
		}
	}
	for name, pod := range wanted {
		if old, leaves := s.leaving[name]; leaves {
			if s.pods.Known(old) {
				waiting = true
				continue
			}
			delete(s.leaving, name)
		}
		if old := s.current[name]; old != nil {
			pod.Annotations[SeenAnnotation] = old.Annotations[SeenAnnotation]
			if reflect.DeepEqual(old, pod) {
				continue
			}
		}
		s.current[name] = pod
		s.pods.Update(pod)
	}
	return waiting
}

// manifests reads the files; one that is wrong is logged and left out.
func (s *Static) manifests() (map[string]*v1.Pod, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	pods := map[string]*v1.Pod{}
	files := map[string]string{}
	told := map[string]string{}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		pod, err := load(path, s.node)
		if err == nil {
			name := pod.Namespace + "/" + pod.Name
			if other, taken := files[name]; taken {
				err = errors.New("static pod " + path + ": " + other + " has a pod of the same name")
			} else {
				files[name], pods[name] = path, pod
				continue
			}
		}
		told[path] = err.Error()
		if s.told[path] != err.Error() {
			s.logger.Warn("static pod is left out", "error", err)
		}
	}
	s.told = told
	return pods, nil
}

// Run follows the directory until ctx ends.
func (s *Static) Run(ctx context.Context) {
	var events chan fsnotify.Event
	if watcher, err := fsnotify.NewWatcher(); err != nil {
		s.logger.Warn("static pods are looked at every few minutes only", "error", err)
	} else {
		defer watcher.Close()
		if err := watcher.Add(s.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.logger.Warn("static pods are looked at every few minutes only", "dir", s.dir, "error", err)
		}
		events = watcher.Events
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			timer.Reset(settle)
		case <-timer.C:
			if s.Read() {
				timer.Reset(settle)
			} else {
				timer.Reset(reread)
			}
		}
	}
}
