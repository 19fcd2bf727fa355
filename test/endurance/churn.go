package endurance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// patience is how long a pod may take to become Ready, or to go, while
// everything around it is killed again and again.
const patience = 3 * time.Minute

// churn makes pods of all kinds and deletes them.
type churn struct {
	*node
	made, gone atomic.Int64
}

// kinds are specs that ask for different things of a node.
var kinds = []struct {
	name string
	spec func() corev1.PodSpec
}{
	{"plain", func() corev1.PodSpec { return corev1.PodSpec{Containers: []corev1.Container{sleeper("main")}} }},
	{"pair", func() corev1.PodSpec {
		return corev1.PodSpec{Containers: []corev1.Container{sleeper("one"), talker("two")}, ShareProcessNamespace: ptr.To(true)}
	}},
	{"prepared", func() corev1.PodSpec {
		sidecar := talker("sidecar")
		sidecar.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		first := sleeper("first")
		first.Command = []string{"sh", "-c", "echo prepared > /data/file"}
		main := sleeper("main")
		main.ReadinessProbe = &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "/data/file"}}}, PeriodSeconds: 1, TimeoutSeconds: 5,
		}
		data := []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		first.VolumeMounts, main.VolumeMounts = data, data
		return corev1.PodSpec{
			InitContainers: []corev1.Container{sidecar, first}, Containers: []corev1.Container{main},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		}
	}},
	{"volumes", func() corev1.PodSpec {
		main := sleeper("main")
		main.VolumeMounts = []corev1.VolumeMount{
			{Name: "memory", MountPath: "/memory"}, {Name: "settings", MountPath: "/settings"}, {Name: "settings", MountPath: "/one", SubPath: "colour"},
			{Name: "labels", MountPath: "/labels"},
		}
		return corev1.PodSpec{
			Containers: []corev1.Container{main},
			Volumes: []corev1.Volume{
				{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("4Mi"))}}},
				{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
				{Name: "labels", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
					{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
				}}}},
			},
		}
	}},
	{"crashing", func() corev1.PodSpec {
		main := sleeper("main")
		main.Command = []string{"sh", "-c", "sleep 1; exit 3"}
		return corev1.PodSpec{Containers: []corev1.Container{main, sleeper("other")}}
	}},
	{"host", func() corev1.PodSpec {
		return corev1.PodSpec{Containers: []corev1.Container{sleeper("main")}, HostNetwork: true}
	}},
}

func sleeper(name string) corev1.Container {
	return corev1.Container{Name: name, Image: "busybox", Command: []string{"sleep", "3600"}}
}

func talker(name string) corev1.Container {
	return corev1.Container{Name: name, Image: "busybox", Command: []string{"sh", "-c", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.2; done"}}
}

// run makes one pod after the other until ctx ends, and returns when the last
// one is gone.
func (c *churn) run(ctx context.Context, worker int, seed uint64) error {
	random := rand.New(rand.NewPCG(seed, uint64(worker)))
	var errs []error
	for i := 0; ctx.Err() == nil && len(errs) == 0; i++ {
		kind := kinds[random.IntN(len(kinds))]
		// The pod's end is waited for when ctx is over, too.
		errs = append(errs, c.live(context.WithoutCancel(ctx), fmt.Sprintf("%s-%d-%d", kind.name, worker, i), kind.spec(), random)...)
	}
	return errors.Join(errs...)
}

// live takes a pod through its life. Some are deleted before they run.
func (c *churn) live(ctx context.Context, name string, spec corev1.PodSpec, random *rand.Rand) []error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"part": "churn"}}, Spec: spec}
	if err := c.create(ctx, pod); err != nil {
		return []error{fmt.Errorf("create pod %s: %w", name, err)}
	}
	c.made.Add(1)
	hasty, crashes := random.IntN(4) == 0, name[:5] == "crash"
	deadline := time.Now().Add(patience)
	var seen *corev1.Pod
	for {
		if found := c.pod(ctx, name); found != nil {
			seen = found
		}
		if seen != nil && (hasty || isReady(seen) || crashes && restarted(seen)) {
			break
		}
		if time.Now().After(deadline) {
			return []error{fmt.Errorf("pod %s did not become Ready within %s: %s\n%s", name, patience, describe(seen), c.events(ctx, name))}
		}
		wait(ctx, 200*time.Millisecond)
	}
	wait(ctx, time.Duration(random.IntN(1500))*time.Millisecond)
	if err := c.remove(ctx, seen.UID, name, int64(random.IntN(3))); err != nil {
		return []error{fmt.Errorf("delete pod %s: %w", name, err)}
	}
	for deadline = time.Now().Add(patience); ; wait(ctx, 200*time.Millisecond) {
		found, err := c.api.CoreV1().Pods(metav1.NamespaceDefault).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			c.gone.Add(1)
			return nil
		}
		if time.Now().After(deadline) {
			return []error{fmt.Errorf("pod %s did not go within %s: %s (%v)\n%s", name, patience, describe(found), err, c.events(ctx, name))}
		}
	}
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func restarted(pod *corev1.Pod) bool {
	for _, status := range pod.Status.ContainerStatuses {
		if status.RestartCount > 0 {
			return true
		}
	}
	return false
}

func wait(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}
