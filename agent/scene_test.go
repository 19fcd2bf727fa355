package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/skiff-run/skiff/internal/testenv"
)

// scene is one thing a pod may ask of a node, and how it is checked. The check
// has a machine whose failures are the scene's own.
type scene struct {
	name  string
	check func(m *machine)
}

// play checks scenes beside each other on one machine.
func (m *machine) play(scenes []scene) {
	m.Run("scenes", func(t *testing.T) {
		for _, s := range scenes {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				own := *m
				own.T = t
				s.check(&own)
			})
		}
	})
}

// script is a container that runs a script.
func script(name, text string, change ...func(*v1.Container)) v1.Container {
	c := v1.Container{
		Name: name, Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sh", "-c", text},
		TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: v1.TerminationMessageReadFile,
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// run creates a pod whose containers are the given ones.
func (m *machine) run(name string, policy v1.RestartPolicy, containers []v1.Container, change ...func(*v1.PodSpec)) {
	m.Helper()
	spec := v1.PodSpec{RestartPolicy: policy, Containers: containers, DNSPolicy: v1.DNSClusterFirst}
	for _, f := range change {
		f(&spec)
	}
	m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: spec})
}

// eventually waits for a condition of the pod and returns it then.
func (m *machine) eventually(name, what string, condition func(*v1.Pod) bool) *v1.Pod {
	m.Helper()
	var pod *v1.Pod
	defer func() {
		if m.Failed() && pod != nil {
			m.Logf("pod %s: %+v\nevents: %q", name, pod.Status, m.eventsOf(name))
		}
	}()
	testenv.Eventually(m, 40*time.Second, func() bool {
		pod = m.pod(name)
		return pod != nil && condition(pod)
	}, "pod %s: %s", name, what)
	return pod
}

func (m *machine) ends(name string, phase v1.PodPhase) *v1.Pod {
	m.Helper()
	return m.eventually(name, "it is "+string(phase), func(p *v1.Pod) bool { return p.Status.Phase == phase })
}

func (m *machine) becomesReady(name string) *v1.Pod {
	m.Helper()
	return m.eventually(name, "it is Ready", isReady)
}

// output is what a pod of one container prints before it ends with success.
func (m *machine) output(name, text string, change func(*v1.PodSpec)) string {
	m.Helper()
	m.run(name, v1.RestartPolicyNever, []v1.Container{script("c", text)}, change)
	m.ends(name, v1.PodSucceeded)
	return m.log(name, "c")
}

func (m *machine) log(pod, container string) string {
	m.Helper()
	code, body := m.get("/containerLogs/default/" + pod + "/" + container)
	if code != 200 {
		m.Fatalf("log of %s/%s: %d %s", pod, container, code, body)
	}
	return body
}

func (m *machine) expect(got, want string) {
	m.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		m.Errorf("got  %q\nwant %q", got, want)
	}
}

// eventsOf lists the events of a pod as "Reason message".
func (m *machine) eventsOf(pod string) []string {
	m.Helper()
	list, err := m.client.CoreV1().Events("default").List(context.Background(), metav1.ListOptions{})
	must(m, err)
	var lines []string
	for _, e := range list.Items {
		if e.InvolvedObject.Name == pod {
			lines = append(lines, e.Reason+" "+e.Message)
		}
	}
	return lines
}

func (m *machine) eventComes(pod, beginning string) {
	m.Helper()
	testenv.Eventually(m, 30*time.Second, func() bool {
		for _, line := range m.eventsOf(pod) {
			if strings.HasPrefix(line, beginning) {
				return true
			}
		}
		return false
	}, "pod %s has an event %q", pod, beginning)
}

// endPod asks for the pod's end, as the API does, and waits for it.
func (m *machine) endPod(name string, grace int64) {
	m.Helper()
	m.askToEnd(name, grace)
	testenv.Eventually(m, 40*time.Second, func() bool { return m.pod(name) == nil }, "pod %s is gone from the API", name)
}

func (m *machine) askToEnd(name string, grace int64) {
	m.Helper()
	now := metav1.Now()
	pod := m.pod(name)
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
	must(m, m.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, "default"))
}

// attach joins a container's streams until it ends or the input is used up and the output has come.
func (m *machine) attach(pod, container, input string, tty bool) (string, error) {
	m.Helper()
	rc := &rest.Config{Host: fmt.Sprintf("https://127.0.0.1:%d", m.settings.Port), TLSClientConfig: rest.TLSClientConfig{
		Insecure: true, CertFile: filepath.Join(m.dir, "pki/apiserver-kubelet-client.crt"), KeyFile: filepath.Join(m.dir, "pki/apiserver-kubelet-client.key"),
	}}
	query := "input=1&output=1&error=1"
	if tty {
		query = "input=1&output=1&tty=1"
	}
	target, err := url.Parse(fmt.Sprintf("%s/attach/default/%s/%s?%s", rc.Host, pod, container, query))
	must(m, err)
	executor, err := remotecommand.NewSPDYExecutor(rc, "POST", target)
	must(m, err)
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	options := remotecommand.StreamOptions{Stdin: strings.NewReader(input), Stdout: &out, Tty: tty}
	if !tty {
		options.Stderr = &errs
	}
	err = executor.StreamWithContext(ctx, options)
	return out.String() + errs.String(), err
}

func statusOf(pod *v1.Pod, container string) *v1.ContainerStatus {
	for _, list := range [][]v1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == container {
				return &list[i]
			}
		}
	}
	return &v1.ContainerStatus{}
}

func ref[T any](v T) *T { return &v }

// scratch gives all containers of a pod a folder /s that lives as long as the pod.
func scratch(spec *v1.PodSpec) {
	spec.Volumes = append(spec.Volumes, v1.Volume{Name: "s", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
	mountAll(spec, v1.VolumeMount{Name: "s", MountPath: "/s"})
}

// folder gives all containers of a pod a folder of the node at /s.
func folder(dir string) func(*v1.PodSpec) {
	return func(spec *v1.PodSpec) {
		spec.Volumes = append(spec.Volumes, v1.Volume{Name: "s", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: dir}}})
		mountAll(spec, v1.VolumeMount{Name: "s", MountPath: "/s"})
	}
}

func mountAll(spec *v1.PodSpec, mount v1.VolumeMount) {
	for _, list := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			list[i].VolumeMounts = append(list[i].VolumeMounts, mount)
		}
	}
}

func with(changes ...func(*v1.PodSpec)) func(*v1.PodSpec) {
	return func(spec *v1.PodSpec) {
		for _, f := range changes {
			f(spec)
		}
	}
}
