package storage_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/skiff-run/skiff/control/storage/cached"
	"github.com/skiff-run/skiff/control/storage/raw"
	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/storetest"
)

// mark is before everything the suite stores.
const mark = "test!"

// topology is which member of how many a storage talks to.
type topology struct {
	name string
	// open returns that member of a new store.
	open func(testing.TB) *raftstore.Store
}

// alone is a store with one member.
func alone(t testing.TB) *raftstore.Store {
	t.Helper()
	store, err := raftstore.Open(t.Context(), raftstore.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// leader and follower are of a store with three members.
func leader(t testing.TB) *raftstore.Store   { return storetest.Open(t, 3)[0] }
func follower(t testing.TB) *raftstore.Store { return storetest.Open(t, 3)[1] }

// layers are the two storages by name.
var layers = map[string]func(testing.TB, raw.Config) fixture{
	"raw": func(t testing.TB, config raw.Config) fixture {
		s, err := raw.New(config)
		if err != nil {
			t.Fatal(err)
		}
		return fixture{Interface: s, raw: s, store: config.Store, codec: config.Codec}
	},
	"cached": func(t testing.TB, config raw.Config) fixture {
		hub := cached.NewHub(config.Store)
		hub.DetectMutations(func(key, difference string) { t.Errorf("the shared object %s was changed: %s", key, difference) })
		s, err := cached.New(hub, config, attributes)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			hub.CheckMutations()
			s.Destroy()
		})
		return fixture{Interface: s, raw: s.Store, store: config.Store, codec: config.Codec}
	},
}

// fixture is a storage of pods under test, with what the suite wants to do to it.
type fixture struct {
	storage.Interface
	raw   *raw.Store
	store *raftstore.Store
	codec runtime.Codec
}

// newFixture makes a storage on a store; change may alter its configuration.
func newFixture(t testing.TB, layer string, store *raftstore.Store, change func(*raw.Config)) fixture {
	t.Helper()
	config := raw.Config{
		Store: store, Codec: newCodec(t), Transformer: storagetesting.NewPrefixTransformer([]byte(mark), false),
		ResourcePrefix: "/pods/", GroupResource: schema.GroupResource{Resource: "pods"},
		NewFunc: func() runtime.Object { return &example.Pod{} },
		Indexers: storage.IndexerFuncs{"spec.nodeName": func(object runtime.Object) string {
			return object.(*example.Pod).Spec.NodeName
		}},
	}
	if change != nil {
		change(&config)
	}
	return layers[layer](t, config)
}

func newCodec(t testing.TB) runtime.Codec {
	t.Helper()
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	for _, add := range []func(*runtime.Scheme) error{example.AddToScheme, examplev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion)
}

func attributes(object runtime.Object) (labels.Set, fields.Set, error) {
	pod, ok := object.(*example.Pod)
	if !ok {
		return nil, nil, fmt.Errorf("%T is not a pod", object)
	}
	return pod.Labels, fields.Set{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "spec.nodeName": pod.Spec.NodeName,
		"spec.restartPolicy": string(pod.Spec.RestartPolicy), "status.phase": string(pod.Status.Phase),
	}, nil
}

// UpdatePrefixTransformer implements storagetesting.InterfaceWithPrefixTransformer.
func (f fixture) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	original := f.raw.Transformer.(*storagetesting.PrefixTransformer)
	changed := *original
	f.raw.Transformer = modify(&changed)
	return func() { f.raw.Transformer = original }
}

// UpdateTransformer implements storagetesting.InterfaceWithTransformerOverride.
func (f fixture) UpdateTransformer(modify storagetesting.TransformerModifier) func() {
	original := f.raw.Transformer
	f.raw.Transformer = modify(original)
	return func() { f.raw.Transformer = original }
}

// validKey checks what is stored under a key.
func (f fixture) validKey(_ context.Context, t *testing.T, key string) {
	kv, _, err := f.store.Get(key, 0)
	if err != nil || kv == nil {
		t.Fatalf("key %s: %v %v", key, kv, err)
	}
	decoded, err := runtime.Decode(f.codec, kv.Value[len(mark):])
	if err != nil {
		t.Fatal(err)
	}
	if pod := decoded.(*example.Pod); pod.ResourceVersion != "" || pod.SelfLink != "" {
		t.Errorf("stored with resourceVersion %q and selfLink %q", pod.ResourceVersion, pod.SelfLink)
	}
}

func (f fixture) compact(ctx context.Context, t *testing.T, version string) {
	revision, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	// In etcd, which the suite was written for, a compaction takes a revision.
	f.increase(ctx, t)
	if err := f.store.Compact(ctx, revision); err != nil {
		t.Fatal(err)
	}
}

// increase takes one revision for something else.
func (f fixture) increase(ctx context.Context, t *testing.T) int64 {
	result, err := f.store.Put(ctx, raftstore.PutRequest{Key: "increaseRV", Value: []byte(rand.Text()), ExpectModRevision: raftstore.AnyRevision})
	if err != nil {
		t.Fatal(err)
	}
	return result.Revision
}

// moody fails when it is told to.
type moody struct{ failing atomic.Bool }

var errMood = errors.New("synthetic error")

// moodyCodec fails to decode.
type moodyCodec struct {
	runtime.Codec
	*moody
}

// Decode implements runtime.Decoder.
func (m moodyCodec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if m.failing.Load() {
		return nil, nil, errMood
	}
	return m.Codec.Decode(data, defaults, into)
}

// moodyTransformer fails to decrypt.
type moodyTransformer struct {
	value.Transformer
	*moody
}

// TransformFromStorage implements value.Transformer.
func (m moodyTransformer) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	if m.failing.Load() {
		return nil, false, errMood
	}
	return m.Transformer.TransformFromStorage(ctx, data, dataCtx)
}
