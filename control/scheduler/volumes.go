package scheduler

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	volumehelper "k8s.io/component-helpers/storage/volume"

	"github.com/skiff-run/skiff/control/scheduler/plugins"
)

// bindTimeout is how long a pod waits for its volumes before another node is tried.
const bindTimeout = 10 * time.Minute

// volumeBinder carries out what was decided about the claims of a pod, and
// remembers it until the API shows it. Safe for concurrent use.
type volumeBinder struct {
	plugins.Volumes
	client kubernetes.Interface
	pods   corelisters.PodLister

	mu sync.Mutex
	// volumeFor and nodeFor are decisions not in the API yet: the claim a volume was
	// given to, and the node where a claim's volume is to be made.
	volumeFor map[string]types.UID
	nodeFor   map[types.UID]string
	// changed is closed when something about storage changes.
	changed chan struct{}
}

func newVolumeBinder(client kubernetes.Interface, factory informers.SharedInformerFactory) *volumeBinder {
	core, storage := factory.Core().V1(), factory.Storage().V1()
	b := &volumeBinder{
		client: client, pods: core.Pods().Lister(),
		volumeFor: map[string]types.UID{}, nodeFor: map[types.UID]string{}, changed: make(chan struct{}),
	}
	b.Volumes = plugins.Volumes{
		Claims: core.PersistentVolumeClaims().Lister(), Volumes: core.PersistentVolumes().Lister(), Classes: storage.StorageClasses().Lister(),
		Drivers: storage.CSIDrivers().Lister(), Nodes: storage.CSINodes().Lister(), Capacities: storage.CSIStorageCapacities().Lister(),
		AssumedClaim: func(volume string) (types.UID, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			claim, assumed := b.volumeFor[volume]
			return claim, assumed
		},
		AssumedNode: func(claim types.UID) (string, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			node, assumed := b.nodeFor[claim]
			return node, assumed
		},
	}
	return b
}

// decision is what a pod's claims get on its node.
type decision struct {
	node  *corev1.Node
	match plugins.Match
}

// assume decides how the pod's claims are met on the node, so that no other pod
// gets the same. Nil: nothing has to be done.
func (b *volumeBinder) assume(pod *corev1.Pod, node *corev1.Node) *decision {
	claims, err := b.OfPod(pod)
	if err != nil || len(claims.Delayed) == 0 || node == nil {
		return nil
	}
	match, _ := b.On(node, claims)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, binding := range match.Static {
		b.volumeFor[binding.Volume.Name] = binding.Claim.UID
	}
	for _, claim := range match.Provision {
		b.nodeFor[claim.UID] = node.Name
	}
	return &decision{node: node, match: match}
}

// bind writes the decision and waits until every claim has its volume.
func (b *volumeBinder) bind(ctx context.Context, pod *corev1.Pod, d *decision) error {
	if d == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	defer b.forget(d)
	for _, binding := range d.match.Static {
		volume, dirty, err := volumehelper.GetBindVolumeToClaim(binding.Volume, binding.Claim)
		if err == nil && dirty {
			_, err = b.client.CoreV1().PersistentVolumes().Update(ctx, volume, metav1.UpdateOptions{})
		}
		if err != nil {
			return fmt.Errorf("give volume %s to claim %s: %w", binding.Volume.Name, binding.Claim.Name, err)
		}
	}
	for _, claim := range d.match.Provision {
		if claim.Annotations[volumehelper.AnnSelectedNode] == d.node.Name {
			continue
		}
		claim = claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, volumehelper.AnnSelectedNode, d.node.Name)
		if _, err := b.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("choose node %s for claim %s: %w", d.node.Name, claim.Name, err)
		}
	}
	for {
		changed := b.next()
		if done, err := b.bound(ctx, pod, d); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("binding volumes: %w", ctx.Err())
		case <-changed:
		}
	}
}

// bound reports whether all claims are bound; the error says why they will not be.
func (b *volumeBinder) bound(ctx context.Context, pod *corev1.Pod, d *decision) (bool, error) {
	if _, err := b.pods.Pods(pod.Namespace).Get(pod.Name); apierrors.IsNotFound(err) {
		return false, fmt.Errorf("pod does not exist any more: %w", err)
	}
	all := true
	for _, binding := range d.match.Static {
		done, err := b.claimBound(binding.Claim, d.node)
		if err != nil {
			return false, err
		}
		all = all && done
	}
	for _, claim := range d.match.Provision {
		done, err := b.claimBound(claim, d.node)
		if err != nil {
			return false, err
		}
		if !done && b.seen(claim.UID) {
			// A provisioner that gives up takes the choice of the node back.
			now, err := b.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Get(ctx, claim.Name, metav1.GetOptions{})
			if err != nil {
				return false, fmt.Errorf("read claim %s: %w", claim.Name, err)
			}
			if now.Annotations[volumehelper.AnnSelectedNode] != d.node.Name {
				return false, fmt.Errorf("provisioning failed for PVC %q", claim.Name)
			}
		}
		all = all && done
	}
	return all, nil
}

func (b *volumeBinder) claimBound(claim *corev1.PersistentVolumeClaim, node *corev1.Node) (bool, error) {
	now, err := b.Claims.PersistentVolumeClaims(claim.Namespace).Get(claim.Name)
	if err != nil {
		return false, fmt.Errorf("read claim %s: %w", claim.Name, err)
	}
	if now.UID != claim.UID {
		return false, fmt.Errorf("claim %s was replaced", claim.Name)
	}
	if now.Spec.VolumeName == "" || !metav1.HasAnnotation(now.ObjectMeta, volumehelper.AnnBindCompleted) {
		return false, nil
	}
	volume, err := b.Volumes.Volumes.Get(now.Spec.VolumeName)
	if err != nil {
		return false, nil //nolint:nilerr // the informer has not seen it yet
	}
	if err := volumehelper.CheckNodeAffinity(volume, node.Labels); err != nil {
		return false, fmt.Errorf("pv %q node affinity doesn't match node %q: %w", volume.Name, node.Name, err)
	}
	return true, nil
}

// seen reports whether the API has shown the choice of the claim's node.
func (b *volumeBinder) seen(claim types.UID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, waits := b.nodeFor[claim]
	return !waits
}

// forget ends what was assumed: the API shows it, or it came to nothing.
func (b *volumeBinder) forget(d *decision) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, binding := range d.match.Static {
		if b.volumeFor[binding.Volume.Name] == binding.Claim.UID {
			delete(b.volumeFor, binding.Volume.Name)
		}
	}
	for _, claim := range d.match.Provision {
		delete(b.nodeFor, claim.UID)
	}
}

// seeClaim ends an assumption that the API shows.
func (b *volumeBinder) seeClaim(claim *corev1.PersistentVolumeClaim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if node, waits := b.nodeFor[claim.UID]; waits && claim.Annotations[volumehelper.AnnSelectedNode] == node {
		delete(b.nodeFor, claim.UID)
	}
}

// seeVolume does the same for a volume.
func (b *volumeBinder) seeVolume(volume *corev1.PersistentVolume) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ref := volume.Spec.ClaimRef; ref != nil && b.volumeFor[volume.Name] == ref.UID {
		delete(b.volumeFor, volume.Name)
	}
}

func (b *volumeBinder) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *volumeBinder) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
}
