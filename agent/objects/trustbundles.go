package objects

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"slices"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// TrustBundles follows ClusterTrustBundles from the moment the first pod asks for one.
type TrustBundles struct {
	ctx     context.Context
	client  kubernetes.Interface
	changed func(types.UID)

	once     sync.Once
	informer cache.SharedIndexInformer

	// mu guards users, the pods that asked.
	mu    sync.Mutex
	users map[types.UID]bool
}

// NewTrustBundles returns a follower that ends with ctx. changed is called for every pod
// that asked when a bundle changes; it must not block.
func NewTrustBundles(ctx context.Context, client kubernetes.Interface, changed func(types.UID)) *TrustBundles {
	return &TrustBundles{ctx: ctx, client: client, changed: changed, users: map[types.UID]bool{}}
}

// Forget drops a pod that has ended.
func (b *TrustBundles) Forget(uid types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.users, uid)
}

func (b *TrustBundles) start() {
	factory := informers.NewSharedInformerFactory(b.client, 0)
	b.informer = factory.Certificates().V1().ClusterTrustBundles().Informer()
	wake := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for uid := range b.users {
			b.changed(uid)
		}
	}
	// The only error is an informer that has ended.
	_, _ = b.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { wake() }, UpdateFunc: func(any, any) { wake() }, DeleteFunc: func(any) { wake() },
	})
	factory.StartWithContext(b.ctx)
}

// TrustBundle returns the certificates a projection asks for, PEM, each once. Nothing and
// no error: it is optional, and there is none.
func (b *TrustBundles) TrustBundle(ctx context.Context, pod types.UID, source *v1.ClusterTrustBundleProjection) ([]byte, error) {
	b.once.Do(b.start)
	b.mu.Lock()
	b.users[pod] = true
	b.mu.Unlock()
	wait, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	if !cache.WaitForCacheSync(wait.Done(), b.informer.HasSynced) {
		return nil, fmt.Errorf("ClusterTrustBundles could not be read yet")
	}
	optional := source.Optional != nil && *source.Optional
	if source.Name != nil {
		object, exists, err := b.informer.GetStore().GetByKey(*source.Name)
		if err != nil {
			return nil, fmt.Errorf("while getting ClusterTrustBundle: %w", err)
		}
		bundle, ok := object.(*certificatesv1.ClusterTrustBundle)
		if !exists || !ok {
			if optional {
				return nil, nil
			}
			return nil, fmt.Errorf("clustertrustbundles.certificates.k8s.io %q not found", *source.Name)
		}
		return normalize(bundle.Spec.TrustBundle)
	}
	selected, err := b.selected(source)
	if err != nil {
		return nil, err
	}
	if len(selected) == 0 {
		if optional {
			return nil, nil
		}
		return nil, fmt.Errorf("combination of signerName and labelSelector matched zero ClusterTrustBundles")
	}
	return normalize(selected...)
}

func (b *TrustBundles) selected(source *v1.ClusterTrustBundleProjection) ([]string, error) {
	if source.SignerName == nil {
		return nil, fmt.Errorf("either name or signerName must be specified")
	}
	// No selector selects nothing, an empty one everything.
	selector := labels.Nothing()
	if source.LabelSelector != nil {
		parsed, err := metav1.LabelSelectorAsSelector(source.LabelSelector)
		if err != nil {
			return nil, fmt.Errorf("while parsing label selector: %w", err)
		}
		selector = parsed
	}
	var found []string
	for _, object := range b.informer.GetStore().List() {
		bundle, ok := object.(*certificatesv1.ClusterTrustBundle)
		if ok && bundle.Spec.SignerName == *source.SignerName && selector.Matches(labels.Set(bundle.Labels)) {
			found = append(found, bundle.Spec.TrustBundle)
		}
	}
	return found, nil
}

// normalize joins bundles: every certificate once, without what people write between
// them, in an order that depends on nothing but the certificates.
func normalize(bundles ...string) ([]byte, error) {
	blocks := map[[sha256.Size]byte]*pem.Block{}
	for _, bundle := range bundles {
		rest := []byte(bundle)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			blocks[sha256.Sum256(block.Bytes)] = &pem.Block{Type: block.Type, Bytes: block.Bytes}
		}
	}
	var order [][sha256.Size]byte
	for sum := range blocks {
		order = append(order, sum)
	}
	slices.SortFunc(order, func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	var out bytes.Buffer
	for _, sum := range order {
		if err := pem.Encode(&out, blocks[sum]); err != nil {
			return nil, fmt.Errorf("encode a trust anchor: %w", err)
		}
	}
	return out.Bytes(), nil
}
