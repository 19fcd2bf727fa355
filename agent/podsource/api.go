package podsource

import (
	"cmp"
	"context"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Pods receives the pods of this node.
type Pods interface {
	Update(pod *v1.Pod)
	Remove(uid types.UID)
}

// API follows the pods the API server assigned to a node. It is the store of
// a reflector and keeps no pods, only who is known.
type API struct {
	client kubernetes.Interface
	node   string
	pods   Pods

	once   sync.Once
	synced chan struct{}
	// mirrorChanges holds at most one word.
	mirrorChanges chan struct{}

	// mu guards known and mirrors.
	mu    sync.Mutex
	known map[types.UID]bool
	// mirrors are the mirror pods of this node, by their static pod's UID.
	mirrors map[types.UID]*v1.Pod
}

// MirrorAnnotation on a pod names the static pod it mirrors.
const MirrorAnnotation = v1.MirrorPodAnnotationKey

// NewAPI returns a source for the named node.
func NewAPI(client kubernetes.Interface, node string, pods Pods) *API {
	return &API{client: client, node: node, pods: pods, synced: make(chan struct{}), mirrorChanges: make(chan struct{}, 1), known: map[types.UID]bool{}, mirrors: map[types.UID]*v1.Pod{}}
}

// Run follows the API until ctx ends.
func (a *API) Run(ctx context.Context) {
	selector := fields.OneTermEqualSelector("spec.nodeName", a.node).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return a.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return a.client.CoreV1().Pods(metav1.NamespaceAll).Watch(ctx, o)
		},
	}
	cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, a.client), &v1.Pod{}, a, cache.ReflectorOptions{Name: "pods of " + a.node}).RunWithContext(ctx)
}

// Synced is closed when the pods were read once.
func (a *API) Synced() <-chan struct{} { return a.synced }

// Add, Update, Delete, Replace and Resync make API a cache.ReflectorStore.
func (a *API) Add(object any) error    { return a.Update(object) }
func (a *API) Resync() error           { return nil }
func (a *API) Update(object any) error { a.one(object); return nil }

func (a *API) one(object any) {
	pod, ok := object.(*v1.Pod)
	if !ok || pod.Spec.NodeName != a.node {
		return
	}
	// Nobody on a node asks who set which field.
	pod.ManagedFields = nil
	if mirrored, is := pod.Annotations[MirrorAnnotation]; is {
		a.mu.Lock()
		old := a.mirrors[types.UID(mirrored)]
		a.mirrors[types.UID(mirrored)] = pod
		a.mu.Unlock()
		if old == nil || old.UID != pod.UID || pod.DeletionTimestamp != nil {
			a.mirrorChanged()
		}
		return
	}
	a.mu.Lock()
	a.known[pod.UID] = true
	a.mu.Unlock()
	a.pods.Update(pod)
}

// Delete tells that a pod is gone.
func (a *API) Delete(object any) error {
	pod, ok := object.(*v1.Pod)
	if !ok {
		return nil
	}
	a.mu.Lock()
	mirrored, is := pod.Annotations[MirrorAnnotation]
	if current := a.mirrors[types.UID(mirrored)]; is && current != nil && current.UID == pod.UID {
		delete(a.mirrors, types.UID(mirrored))
	}
	delete(a.known, pod.UID)
	a.mu.Unlock()
	if is {
		a.mirrorChanged()
	} else {
		a.pods.Remove(pod.UID)
	}
	return nil
}

func (a *API) mirrorChanged() {
	select {
	case a.mirrorChanges <- struct{}{}:
	default:
	}
}

// MirrorChanges is sent to when a mirror came, went or is to go.
func (a *API) MirrorChanges() <-chan struct{} { return a.mirrorChanges }

// Replace tells all pods at once, after a list.
func (a *API) Replace(objects []any, _ string) error {
	pods := make([]*v1.Pod, 0, len(objects))
	present := map[types.UID]bool{}
	mirrored := map[types.UID]bool{}
	for _, o := range objects {
		if pod, ok := o.(*v1.Pod); ok && pod.Spec.NodeName == a.node {
			pods = append(pods, pod)
			present[pod.UID] = true
			if uid, is := pod.Annotations[MirrorAnnotation]; is {
				mirrored[types.UID(uid)] = true
			}
		}
	}
	// The oldest first: they have the older right to the node's resources.
	slices.SortStableFunc(pods, func(x, y *v1.Pod) int {
		return cmp.Or(x.CreationTimestamp.Time.Compare(y.CreationTimestamp.Time), cmp.Compare(x.UID, y.UID))
	})
	a.mu.Lock()
	var gone []types.UID
	for uid := range a.known {
		if !present[uid] {
			gone = append(gone, uid)
			delete(a.known, uid)
		}
	}
	for uid := range a.mirrors {
		if !mirrored[uid] {
			delete(a.mirrors, uid)
		}
	}
	a.mu.Unlock()
	for _, uid := range gone {
		a.pods.Remove(uid)
	}
	for _, pod := range pods {
		a.one(pod)
	}
	a.once.Do(func() { close(a.synced) })
	return nil
}

// Mirror returns the mirror of a static pod.
func (a *API) Mirror(static types.UID) (*v1.Pod, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pod, ok := a.mirrors[static]
	return pod, ok
}
