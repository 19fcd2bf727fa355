package podsource

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// Annotations of pods that come from a file, as the kubelet names them.
const (
	SourceAnnotation = "kubernetes.io/config.source"
	HashAnnotation   = "kubernetes.io/config.hash"
)

const (
	// settle is how long a directory must be quiet before it is read: editors
	// write in several steps.
	settle = 100 * time.Millisecond
	// reread is the safety net under the kernel's notifications.
	reread = 5 * time.Minute
)

// Static follows a directory of pod manifests.
type Static struct {
	dir, node string
	pods      Pods
	logger    *slog.Logger
	known     map[types.UID]bool
}

// NewStatic returns a source for the manifests in dir.
func NewStatic(dir, node string, pods Pods, logger *slog.Logger) *Static {
	return &Static{dir: dir, node: node, pods: pods, logger: logger, known: map[types.UID]bool{}}
}

// Read looks at the directory once. The agent does it before it decides that
// running pods are orphans.
func (s *Static) Read() {
	present := map[types.UID]bool{}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Warn("read the static pods; those that run stay", "dir", s.dir, "error", err)
		return
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		pod, err := s.load(filepath.Join(s.dir, e.Name()))
		if err != nil {
			s.logger.Warn("static pod is left out", "error", err)
			continue
		}
		present[pod.UID] = true
		if !s.known[pod.UID] {
			s.known[pod.UID] = true
			s.pods.Update(pod)
		}
	}
	for uid := range s.known {
		if !present[uid] {
			delete(s.known, uid)
			s.pods.Remove(uid)
		}
	}
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
			s.Read()
			timer.Reset(reread)
		}
	}
}

// load reads one manifest. A changed file is another pod: its UID is made from
// the content.
func (s *Static) load(path string) (*v1.Pod, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read static pod: %w", err)
	}
	pod := &v1.Pod{}
	if err := yaml.UnmarshalStrict(data, pod); err != nil {
		return nil, fmt.Errorf("static pod %s: %w", path, err)
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("static pod %s: apiVersion %q, kind %q: a v1 Pod is needed", path, pod.APIVersion, pod.Kind)
	}
	if pod.Name == "" || len(pod.Spec.Containers) == 0 {
		return nil, fmt.Errorf("static pod %s: metadata.name and spec.containers are required", path)
	}
	sum := md5.New()
	fmt.Fprintf(sum, "host:%sfile:%s", s.node, path)
	sum.Write(data)
	uid := hex.EncodeToString(sum.Sum(nil))
	if pod.UID == "" {
		pod.UID = types.UID(uid)
	}
	if pod.Namespace == "" {
		pod.Namespace = v1.NamespaceDefault
	}
	pod.Name += "-" + strings.ToLower(s.node)
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[SourceAnnotation] = "file"
	pod.Annotations[HashAnnotation] = string(pod.UID)
	pod.Status = v1.PodStatus{Phase: v1.PodPending}
	setDefaults(pod, s.node)
	return pod, nil
}

// setDefaults fills in what the API server would have for the fields the agent
// relies on.
func setDefaults(pod *v1.Pod, node string) {
	spec := &pod.Spec
	spec.NodeName = node
	if spec.RestartPolicy == "" {
		spec.RestartPolicy = v1.RestartPolicyAlways
	}
	if spec.DNSPolicy == "" {
		spec.DNSPolicy = v1.DNSClusterFirst
	}
	if spec.TerminationGracePeriodSeconds == nil {
		grace := int64(v1.DefaultTerminationGracePeriodSeconds)
		spec.TerminationGracePeriodSeconds = &grace
	}
	if spec.EnableServiceLinks == nil {
		links := v1.DefaultEnableServiceLinks
		spec.EnableServiceLinks = &links
	}
	if spec.SecurityContext == nil {
		spec.SecurityContext = &v1.PodSecurityContext{}
	}
	// A static pod is not driven out by taints.
	spec.Tolerations = append(spec.Tolerations, v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute})
	for _, containers := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			defaultContainer(&containers[i])
		}
	}
}

func defaultContainer(c *v1.Container) {
	if c.TerminationMessagePath == "" {
		c.TerminationMessagePath = v1.TerminationMessagePathDefault
	}
	if c.TerminationMessagePolicy == "" {
		c.TerminationMessagePolicy = v1.TerminationMessageReadFile
	}
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = v1.PullIfNotPresent
		name := c.Image[strings.LastIndex(c.Image, "/")+1:]
		if strings.HasSuffix(name, ":latest") || !strings.ContainsAny(name, ":@") {
			c.ImagePullPolicy = v1.PullAlways
		}
	}
	for i := range c.Ports {
		if c.Ports[i].Protocol == "" {
			c.Ports[i].Protocol = v1.ProtocolTCP
		}
	}
	for _, probe := range []*v1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if probe != nil {
			probe.TimeoutSeconds = max(probe.TimeoutSeconds, 1)
			probe.SuccessThreshold = max(probe.SuccessThreshold, 1)
			if probe.PeriodSeconds == 0 {
				probe.PeriodSeconds = 10
			}
			if probe.FailureThreshold == 0 {
				probe.FailureThreshold = 3
			}
		}
	}
	for name, limit := range c.Resources.Limits {
		if _, ok := c.Resources.Requests[name]; !ok {
			if c.Resources.Requests == nil {
				c.Resources.Requests = v1.ResourceList{}
			}
			c.Resources.Requests[name] = limit
		}
	}
}
