package core

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/scheme"
	"github.com/skiff-run/skiff/control/storage"
	"github.com/skiff-run/skiff/control/storage/cached"
	"github.com/skiff-run/skiff/raftstore"
)

// house is nodes and pods on a real store.
type house struct {
	t        *testing.T
	ctx      context.Context
	scheme   *scheme.Scheme
	storages registry.Storages
}

func newHouse(t *testing.T) *house {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	store, err := raftstore.Open(ctx, raftstore.Options{Dir: t.TempDir(), MemberID: "one", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s, err := scheme.New()
	if err != nil {
		t.Fatal(err)
	}
	deps := &registry.Dependencies{
		Scheme: s, RESTOptions: &storage.Options{Store: store, Hub: cached.NewHub(store), Scheme: s.Scheme, Codecs: s.Codecs},
		Agents: registry.Agents{Transport: http.DefaultTransport, Port: 10250}, Authorizer: nil,
	}
	h := &house{t: t, ctx: request.WithNamespace(ctx, "default"), scheme: s, storages: registry.Storages{}}
	for _, each := range []add{addNodesAndPods, addPodTemplates, addNamespaces} {
		if err := each(deps, h.storages); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, path := range []string{"pods", "nodes", "podtemplates", "namespaces"} {
			h.storages[path].Destroy()
		}
	})
	return h
}

// create creates a pod as a request would: with defaults.
func (h *house) create(pod *corev1.Pod) (*corev1.Pod, error) {
	h.scheme.Default(pod)
	object, err := h.storages["pods"].(rest.Creater).Create(h.ctx, pod, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return object.(*corev1.Pod), nil
}

func (h *house) mustCreate(name string) *corev1.Pod {
	h.t.Helper()
	pod, err := h.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx:1.25"}}}})
	if err != nil {
		h.t.Fatal(err)
	}
	return pod
}

func (h *house) get(name string) (*corev1.Pod, error) {
	object, err := h.storages["pods"].(rest.Getter).Get(h.ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return object.(*corev1.Pod), nil
}

// update changes a pod through the resource at path.
func (h *house) update(path, name string, change func(*corev1.Pod)) (*corev1.Pod, error) {
	info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		pod := old.DeepCopyObject().(*corev1.Pod)
		change(pod)
		return pod, nil
	})
	object, _, err := h.storages[path].(rest.Updater).Update(h.ctx, name, info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	return object.(*corev1.Pod), nil
}

// bind binds a pod; a uid makes sure it is that one.
func (h *house) bind(name, node string, uid types.UID) error {
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: uid}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
	_, err := h.storages["pods/binding"].(rest.NamedCreater).Create(h.ctx, name, binding, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	return err
}

func (h *house) delete(name string, options *metav1.DeleteOptions) (bool, error) {
	_, gone, err := h.storages["pods"].(rest.GracefulDeleter).Delete(h.ctx, name, rest.ValidateAllObjectFunc, options)
	return gone, err
}

func TestTheLifeOfAPod(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	pod := h.mustCreate("web")
	if pod.Status.Phase != corev1.PodPending || pod.Status.QOSClass != corev1.PodQOSBestEffort || pod.Generation != 1 || pod.UID == "" {
		t.Fatalf("a new pod is %s, %s, generation %d, uid %q", pod.Status.Phase, pod.Status.QOSClass, pod.Generation, pod.UID)
	}
	if err := h.bind("web", "n1", "other"); !apierrors.IsConflict(err) {
		t.Errorf("binding of another pod of that name: %v, want Conflict", err)
	}
	if err := h.bind("web", "n1", ""); err != nil {
		t.Fatal(err)
	}
	if err := h.bind("web", "n2", ""); !apierrors.IsConflict(err) {
		t.Errorf("second binding: %v, want Conflict", err)
	}
	running, err := h.update("pods/status", "web", func(p *corev1.Pod) {
		p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, "10.244.0.5", []corev1.PodIP{{IP: "10.244.0.5"}}
		p.Spec.NodeName, p.Labels = "elsewhere", map[string]string{"reported": "yes"}
	})
	if err != nil {
		t.Fatal(err)
	}
	if running.Spec.NodeName != "n1" || running.Status.Phase != corev1.PodRunning || running.Generation != 1 {
		t.Errorf("after the status the node is %s, the phase %s, the generation %d", running.Spec.NodeName, running.Status.Phase, running.Generation)
	}
	changed, err := h.update("pods", "web", func(p *corev1.Pod) {
		p.Spec.Containers[0].Image, p.Status.Phase = "nginx:1.26", corev1.PodFailed
	})
	if err != nil {
		t.Fatal(err)
	}
	if changed.Generation != 2 || changed.Status.Phase != corev1.PodRunning {
		t.Errorf("after the image the generation is %d, the phase %s", changed.Generation, changed.Status.Phase)
	}
	if _, err := h.update("pods", "web", func(p *corev1.Pod) { p.Spec.HostNetwork = true }); !apierrors.IsInvalid(err) {
		t.Errorf("change of hostNetwork: %v, want Invalid", err)
	}
	debugged, err := h.update("pods/ephemeralcontainers", "web", func(p *corev1.Pod) {
		e := corev1.EphemeralContainer{TargetContainerName: "c"}
		e.Name, e.Image, e.ImagePullPolicy, e.TerminationMessagePolicy = "debug", "busybox:1", corev1.PullIfNotPresent, corev1.TerminationMessageReadFile
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, e)
		p.Spec.Containers[0].Image = "ignored:1"
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(debugged.Spec.EphemeralContainers) != 1 || debugged.Spec.Containers[0].Image != "nginx:1.26" {
		t.Errorf("after a debugger was added the spec is %+v", debugged.Spec)
	}

	if gone, err := h.delete("web", &metav1.DeleteOptions{}); err != nil || gone {
		t.Fatalf("deletion of a running pod: gone %v, %v; want it to have time", gone, err)
	}
	dying, err := h.get("web")
	if err != nil || dying.DeletionTimestamp == nil || *dying.DeletionGracePeriodSeconds != 30 {
		t.Fatalf("the deleted pod is %+v, %v", dying.ObjectMeta, err)
	}
	if gone, err := h.delete("web", metav1.NewDeleteOptions(0)); err != nil || !gone {
		t.Fatalf("deletion by the agent: gone %v, %v", gone, err)
	}
	if _, err := h.get("web"); !apierrors.IsNotFound(err) {
		t.Errorf("the pod is still there: %v", err)
	}
}

func TestAPodWithoutANodeGoesAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.mustCreate("web")
	if gone, err := h.delete("web", &metav1.DeleteOptions{}); err != nil || !gone {
		t.Errorf("gone %v, %v", gone, err)
	}
}

func TestAWrongPodIsRefusedInKubectlsWords(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	_, err := h.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}, RestartPolicy: "Sometimes"}})
	want := `Pod "web" is invalid: [spec.containers[0].image: Required value, spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"]`
	if err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

func TestPodsAreFoundByTheirNode(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, name := range []string{"a", "b", "c"} {
		h.mustCreate(name)
	}
	if err := h.bind("b", "n1", ""); err != nil {
		t.Fatal(err)
	}
	object, err := h.storages["pods"].(rest.Lister).List(h.ctx, &internalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", "n1")})
	if err != nil {
		t.Fatal(err)
	}
	list := object.(*corev1.PodList)
	if len(list.Items) != 1 || list.Items[0].Name != "b" {
		t.Errorf("pods of n1 are %v", list.Items)
	}
}

func TestEvictionMarksAndDeletes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	pod := h.mustCreate("web")
	if err := h.bind("web", "n1", ""); err != nil {
		t.Fatal(err)
	}
	evict := func(options *metav1.DeleteOptions, dryRun ...string) error {
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, DeleteOptions: options}
		_, err := h.storages["pods/eviction"].(rest.NamedCreater).Create(h.ctx, "web", eviction, rest.ValidateAllObjectFunc, &metav1.CreateOptions{DryRun: dryRun})
		return err
	}
	if err := evict(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &pod.ResourceVersion}}); !apierrors.IsConflict(err) {
		t.Errorf("eviction of an older pod: %v, want Conflict", err)
	}
	if err := evict(nil, metav1.DryRunAll); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if pod, err := h.get("web"); err != nil || pod.DeletionTimestamp != nil || conditionIs(pod, corev1.DisruptionTarget) {
		t.Fatalf("a dry run changed the pod: %+v, %v", pod, err)
	}
	current, err := h.get("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := evict(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &current.ResourceVersion}}); err != nil {
		t.Fatal(err)
	}
	if pod, err := h.get("web"); err != nil || pod.DeletionTimestamp == nil || !conditionIs(pod, corev1.DisruptionTarget) {
		t.Errorf("the evicted pod is %+v, %v", pod, err)
	}
}

func TestANodeIsCreatedWithItsStatus(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	node := parseNode(t, "status: {capacity: {cpu: '2'}}")
	node.UID, node.ResourceVersion = "", ""
	object, err := h.storages["nodes"].(rest.Creater).Create(h.ctx, node, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if cpu := object.(*corev1.Node).Status.Allocatable.Cpu(); cpu.String() != "2" {
		t.Errorf("allocatable cpu is %s, want 2", cpu)
	}
}
