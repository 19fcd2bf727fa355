package agent_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/skiff-run/skiff/agent"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/runtime"
)

const nodeName = "n1"

// machine is one node with real containers and an API server that is only a store.
type machine struct {
	*testing.T
	dir      string
	client   *fake.Clientset
	reviews  kubernetes.Interface
	settings *config.Agent
	options  runtime.Options
	podRange string
	// containers is the runtime of the agent that runs.
	containers *runtime.Runtime
	stop       func()
}

func newMachine(t *testing.T) *machine {
	testenv.RequireRoot(t)
	// Not t.TempDir: the path of a socket has little room.
	dir, err := os.MkdirTemp("", "skiff-agent-")
	must(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something is left mounted: %v", err)
		}
	})
	// As the folders of a real node: users of pods pass through.
	must(t, os.Chmod(dir, 0o711))
	m := &machine{T: t, dir: dir, client: fake.NewClientset()}
	m.reviews = reviews(t)
	socket := startContainerd(t, dir)
	authority, err := pki.EnsureControl(pki.Control{Dir: filepath.Join(dir, "pki"), ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"})
	must(t, err)
	must(t, authority.EnsureAgent(filepath.Join(dir, "pki"), nodeName, []net.IP{net.IPv4(127, 0, 0, 1)}))
	s := config.DefaultAgent()
	s.ContainerdAddress, s.RootDir, s.StateDir, s.RunDir = socket, filepath.Join(dir, "kubelet"), filepath.Join(dir, "state"), filepath.Join(dir, "run")
	s.PodLogsDir, s.ContainerLogsDir, s.StaticPodPath = filepath.Join(dir, "logs"), filepath.Join(dir, "links"), filepath.Join(dir, "static")
	// Several runs may share this machine: whatever it sees of them is told apart by number.
	m.podRange = fmt.Sprintf("10.%d.%d.0/24", 220+os.Getpid()/250%30, os.Getpid()%250)
	s.CgroupRoot, s.Bridge, s.ClusterCIDR = fmt.Sprintf("/skiff-agent-test-%d", os.Getpid()), fmt.Sprintf("skat%d", os.Getpid()), m.podRange
	s.ClientCAFile, s.TLSCertFile, s.TLSKeyFile = filepath.Join(dir, "pki/ca.crt"), filepath.Join(dir, "pki/agent-server.crt"), filepath.Join(dir, "pki/agent-server.key")
	s.Port = freePort(t)
	m.settings = s
	m.options, err = agent.RuntimeOptions(s, m.logger())
	must(t, err)
	m.options.Network.Table = fmt.Sprintf("skiff-agent-test-%d", os.Getpid())
	t.Cleanup(func() {
		if err := agent.Cleanup(context.Background(), m.settings, m.logger()); err != nil {
			t.Errorf("clean up: %v", err)
		}
		must(t, runtime.Cleanup(context.Background(), m.options))
	})
	return m
}

// reviews is an API server that lets the control plane's certificate do
// everything to nodes, and nobody else anything.
func reviews(t *testing.T) kubernetes.Interface {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Status.Allowed = review.Spec.User == "kube-apiserver-kubelet-client" && review.Spec.ResourceAttributes.Resource == "nodes"
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(api.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: api.URL})
	must(t, err)
	return client
}

func (m *machine) logger() *slog.Logger {
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs an agent until stop is called.
func (m *machine) start() {
	m.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	containers, err := runtime.New(ctx, m.options)
	must(m, err)
	m.containers = containers
	a, err := agent.New(agent.Config{
		Settings: m.settings, NodeName: nodeName, NodeIP: net.IPv4(127, 0, 0, 1), Version: "v1.37.2", Client: m.client, Reviews: m.reviews, Logger: m.logger(),
		Runtime: agent.NewContainerd(containers), Host: agent.Machine{Runtime: containers, PodPidsLimit: int64(m.settings.Resources.PodPidsLimit)}, EvictionEvery: 200 * time.Millisecond,
	})
	must(m, err)
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	m.stop = func() {
		cancel()
		if err := <-done; err != nil {
			m.Errorf("agent ended with %v", err)
		}
		must(m, containers.Close())
		m.stop = func() {}
	}
	m.Cleanup(func() { m.stop() })
}

func (m *machine) node() *v1.Node {
	node, err := m.client.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return node
}

// ready gives the node a range for pods, as the controllers would, and waits until it is Ready.
func (m *machine) ready() {
	m.Helper()
	testenv.Eventually(m, 10*time.Second, func() bool { return m.node() != nil }, "the node is registered")
	node := m.node()
	node.Spec.PodCIDR, node.Spec.PodCIDRs = m.podRange, []string{m.podRange}
	_, err := m.client.CoreV1().Nodes().Update(context.Background(), node, metav1.UpdateOptions{})
	must(m, err)
	testenv.Eventually(m, 10*time.Second, func() bool {
		for _, c := range m.node().Status.Conditions {
			if c.Type == v1.NodeReady {
				return c.Status == v1.ConditionTrue
			}
		}
		return false
	}, "the node is Ready")
}

func (m *machine) pod(name string) *v1.Pod {
	pod, err := m.client.CoreV1().Pods("default").Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	must(m, err)
	return pod
}

func (m *machine) create(pod *v1.Pod) {
	m.Helper()
	grace, links := int64(5), true
	pod.Namespace, pod.UID, pod.Generation = "default", types.UID("uid-of-"+pod.Name), 1
	pod.Spec.NodeName, pod.Spec.TerminationGracePeriodSeconds, pod.Spec.EnableServiceLinks = nodeName, &grace, &links
	pod.Status.Phase = v1.PodPending
	_, err := m.client.CoreV1().Pods("default").Create(context.Background(), pod, metav1.CreateOptions{})
	must(m, err)
}

func isReady(pod *v1.Pod) bool {
	if pod == nil {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func (m *machine) httpClient() *http.Client {
	pair, err := tls.LoadX509KeyPair(filepath.Join(m.dir, "pki/apiserver-kubelet-client.crt"), filepath.Join(m.dir, "pki/apiserver-kubelet-client.key"))
	must(m, err)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}}, Timeout: 20 * time.Second}
}

func (m *machine) get(path string) (int, string) {
	m.Helper()
	response, err := m.httpClient().Get(fmt.Sprintf("https://127.0.0.1:%d%s", m.settings.Port, path))
	must(m, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(m, err)
	return response.StatusCode, string(body)
}

// tryGet is get against an agent that may not serve yet.
func (m *machine) tryGet(path string) (int, string) {
	response, err := m.httpClient().Get(fmt.Sprintf("https://127.0.0.1:%d%s", m.settings.Port, path))
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

// exec runs a command as the API server does for kubectl exec.
func (m *machine) exec(pod, container string, command ...string) (string, error) {
	rc := &rest.Config{Host: fmt.Sprintf("https://127.0.0.1:%d", m.settings.Port), TLSClientConfig: rest.TLSClientConfig{
		Insecure: true, CertFile: filepath.Join(m.dir, "pki/apiserver-kubelet-client.crt"), KeyFile: filepath.Join(m.dir, "pki/apiserver-kubelet-client.key"),
	}}
	u := fmt.Sprintf("%s/exec/default/%s/%s?output=1&error=1&command=%s", rc.Host, pod, container, strings.Join(command, "&command="))
	target, err := url.Parse(u)
	must(m, err)
	executor, err := remotecommand.NewSPDYExecutor(rc, "POST", target)
	must(m, err)
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs})
	return out.String() + errs.String(), err
}

func TestANodeRunsAPodFromItsSpecToItsEnd(t *testing.T) {
	m := newMachine(t)
	_, err := m.client.CoreV1().ConfigMaps("default").Create(context.Background(), &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"}, Data: map[string]string{"color": "blue"},
	}, metav1.CreateOptions{})
	must(t, err)
	m.start()
	m.ready()

	began := time.Now()
	m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"app": "web"}}, Spec: v1.PodSpec{
		RestartPolicy:  v1.RestartPolicyAlways,
		InitContainers: []v1.Container{{Name: "init", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"touch", "/scratch/ready"}, VolumeMounts: []v1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}}},
		Containers: []v1.Container{{
			Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, TerminationMessagePath: "/dev/termination-log",
			Command:        []string{"sh", "-c", "echo I am $NAME at $IP, color $(COLOR); exec sleep 3600"},
			Env:            []v1.EnvVar{{Name: "NAME", ValueFrom: fieldRef("metadata.name")}, {Name: "IP", ValueFrom: fieldRef("status.podIP")}, {Name: "COLOR", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, Key: "color"}}}},
			VolumeMounts:   []v1.VolumeMount{{Name: "settings", MountPath: "/settings"}, {Name: "scratch", MountPath: "/scratch"}, {Name: "about", MountPath: "/about"}},
			ReadinessProbe: &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"test", "-f", "/scratch/ready"}}}, PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1},
		}},
		Volumes: []v1.Volume{
			{Name: "settings", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}}}},
			{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
			{Name: "about", VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
		},
	}})
	testenv.Eventually(t, 20*time.Second, func() bool { return isReady(m.pod("web")) }, "the pod is Ready")
	t.Logf("from created to Ready with one init container: %s", time.Since(began))
	pod := m.pod("web")
	if !strings.HasPrefix(pod.Status.PodIP, strings.TrimSuffix(m.podRange, "0/24")) || pod.Status.Phase != v1.PodRunning || pod.Status.InitContainerStatuses[0].State.Terminated == nil {
		t.Fatalf("status %+v", pod.Status)
	}
	id := pod.Status.ContainerStatuses[0].ContainerID

	t.Run("its log tells what the environment said", func(t *testing.T) {
		want := fmt.Sprintf("I am web at %s, color blue\n", pod.Status.PodIP)
		testenv.Eventually(t, 5*time.Second, func() bool { code, body := m.get("/containerLogs/default/web/app"); return code == 200 && body == want }, "the log is there")
	})
	t.Run("its probes are counted", func(t *testing.T) {
		testenv.Eventually(t, 10*time.Second, func() bool {
			_, metrics := m.get("/metrics/probes")
			return strings.Contains(metrics, `prober_probe_total{container="app",namespace="default",pod="web",pod_uid="uid-of-web",probe_type="Readiness",result="successful"}`)
		}, "the readiness probe is counted")
	})
	t.Run("exec reaches it", func(t *testing.T) {
		for command, want := range map[string]string{"cat /settings/color": "blue", "cat /about/labels": `app="web"`, "hostname": "web\n"} {
			if out, err := m.exec("web", "app", strings.Fields(command)...); err != nil || out != want {
				t.Errorf("%s: %q, %v; want %q", command, out, err, want)
			}
		}
		if out, err := m.exec("web", "app", "cat", "/etc/hosts"); err != nil || !strings.Contains(out, pod.Status.PodIP+"\tweb\n") {
			t.Errorf("hosts file %q, %v", out, err)
		}
	})
	t.Run("a changed config map reaches its volume", func(t *testing.T) {
		_, err := m.client.CoreV1().ConfigMaps("default").Update(context.Background(), &v1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"}, Data: map[string]string{"color": "green"},
		}, metav1.UpdateOptions{})
		must(t, err)
		testenv.Eventually(t, 5*time.Second, func() bool {
			out, err := m.exec("web", "app", "cat", "/settings/color")
			return err == nil && out == "green"
		}, "the file changed")
	})
	t.Run("a new agent leaves it alone", func(t *testing.T) {
		m.stop()
		m.start()
		testenv.Eventually(t, 10*time.Second, func() bool {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", m.settings.Port))
			if err != nil {
				return false
			}
			conn.Close()
			// The pods are known as soon as the API was read once.
			_, body := m.get("/pods")
			return strings.Contains(body, `"name":"web"`)
		}, "the agent serves and knows its pods")
		if out, err := m.exec("web", "app", "echo", "alive"); err != nil || out != "alive\n" {
			t.Errorf("exec after the restart: %q, %v", out, err)
		}
		now := m.pod("web")
		if !isReady(now) || now.Status.ContainerStatuses[0].ContainerID != id || now.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("status after the restart: %+v", now.Status)
		}
	})
	t.Run("deletion ends it and leaves nothing", func(t *testing.T) {
		now, grace := metav1.Now(), int64(2)
		pod := m.pod("web")
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
		must(t, m.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, "default"))
		testenv.Eventually(t, 15*time.Second, func() bool { return m.pod("web") == nil }, "the pod is gone from the API")
		testenv.Eventually(t, 10*time.Second, func() bool {
			left, err := os.ReadDir(filepath.Join(m.settings.RootDir, "pods"))
			logs, err2 := os.ReadDir(m.settings.PodLogsDir)
			links, err3 := os.ReadDir(m.settings.ContainerLogsDir)
			return err == nil && err2 == nil && err3 == nil && len(left)+len(logs)+len(links) == 0
		}, "directories, logs and links are gone")
	})
}

func fieldRef(path string) *v1.EnvVarSource {
	return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}
}

func TestABurstOfPodsBecomesReadyAndEndsWithoutRemains(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.ready()
	const pods = 30
	began := time.Now()
	for i := range pods {
		m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}, Spec: v1.PodSpec{
			RestartPolicy: v1.RestartPolicyAlways,
			Containers:    []v1.Container{{Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sleep", "3600"}}},
		}})
	}
	for i := range pods {
		name := fmt.Sprintf("p%d", i)
		testenv.Eventually(t, time.Minute, func() bool { return isReady(m.pod(name)) }, "pod %s is Ready", name)
	}
	t.Logf("%d pods from created to Ready: %s", pods, time.Since(began))
	addresses := map[string]string{}
	for i := range pods {
		pod := m.pod(fmt.Sprintf("p%d", i))
		if other, taken := addresses[pod.Status.PodIP]; taken {
			t.Errorf("%s and %s have the same address", pod.Name, other)
		}
		addresses[pod.Status.PodIP] = pod.Name
		if restarts := pod.Status.ContainerStatuses[0].RestartCount; restarts != 0 {
			t.Errorf("%s was restarted %d times", pod.Name, restarts)
		}
	}
	// Without a graceful end: the API forgets them, the agent has to notice.
	for i := range pods {
		must(t, m.client.CoreV1().Pods("default").Delete(context.Background(), fmt.Sprintf("p%d", i), metav1.DeleteOptions{}))
	}
	testenv.Eventually(t, time.Minute, func() bool {
		left, err := os.ReadDir(filepath.Join(m.settings.RootDir, "pods"))
		return err == nil && len(left) == 0
	}, "nothing is left of the pods")
}
