package cached

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strconv"
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

	"github.com/skiff-run/skiff/control/storage/raw"
	"github.com/skiff-run/skiff/raftstore"
)

// The peer suite, k8s.io/apiserver/pkg/storage/testing, on the real store.

func codec(t testing.TB) runtime.Codec {
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

// suiteStore lets the suite change how stored bytes are transformed.
type suiteStore struct{ *Store }

func openRaft(t testing.TB) *raftstore.Store {
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

func newStore(t testing.TB, hub *Hub, change func(*raw.Config)) *Store {
	t.Helper()
	config := raw.Config{
		Store: hub.store, Codec: codec(t), Transformer: storagetesting.NewPrefixTransformer([]byte("test!"), false),
		ResourcePrefix: "/pods/", GroupResource: schema.GroupResource{Resource: "pods"},
		NewFunc: func() runtime.Object { return &example.Pod{} },
		Indexers: storage.IndexerFuncs{"spec.nodeName": func(object runtime.Object) string {
			return object.(*example.Pod).Spec.NodeName
		}},
	}
	if change != nil {
		change(&config)
	}
	s, err := New(hub, config, attributes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Destroy)
	return s
}

func setup(t testing.TB) (context.Context, suiteStore) {
	t.Helper()
	return t.Context(), suiteStore{newStore(t, NewHub(openRaft(t)), nil)}
}

func unchecked(context.Context, *testing.T, string) {}

func compaction(s suiteStore) storagetesting.Compaction {
	return func(ctx context.Context, t *testing.T, version string) {
		revision, err := strconv.ParseInt(version, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		// In etcd, which the suite was written for, a compaction takes a revision.
		increase(s)(ctx, t)
		if err := s.Config.Store.Compact(ctx, revision); err != nil {
			t.Fatal(err)
		}
	}
}

func increase(s suiteStore) storagetesting.IncreaseRVFunc {
	return func(ctx context.Context, t *testing.T) int64 {
		result, err := s.Config.Store.Put(ctx, raftstore.PutRequest{Key: "increaseRV", Value: []byte(rand.Text()), ExpectModRevision: raftstore.AnyRevision})
		if err != nil {
			t.Fatal(err)
		}
		return result.Revision
	}
}

// Not parallel: some tests of the suite set feature gates of the whole process.
func TestSuite(t *testing.T) {
	plain := map[string]func(context.Context, *testing.T, storage.Interface){
		"CreateWithTTL": storagetesting.RunTestCreateWithTTL, "CreateWithKeyExist": storagetesting.RunTestCreateWithKeyExist,
		"Get": storagetesting.RunTestGet, "UnconditionalDelete": storagetesting.RunTestUnconditionalDelete,
		"ConditionalDelete": storagetesting.RunTestConditionalDelete, "DeleteWithSuggestion": storagetesting.RunTestDeleteWithSuggestion,
		"DeleteWithSuggestionAndConflict":            storagetesting.RunTestDeleteWithSuggestionAndConflict,
		"DeleteWithConflict":                         storagetesting.RunTestDeleteWithConflict,
		"DeleteWithSuggestionOfDeletedObject":        storagetesting.RunTestDeleteWithSuggestionOfDeletedObject,
		"ValidateDeletionWithSuggestion":             storagetesting.RunTestValidateDeletionWithSuggestion,
		"ValidateDeletionWithOnlySuggestionValid":    storagetesting.RunTestValidateDeletionWithOnlySuggestionValid,
		"PreconditionalDeleteWithSuggestion":         storagetesting.RunTestPreconditionalDeleteWithSuggestion,
		"PreconditionalDeleteWithOnlySuggestionPass": storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass,
		"GetListRecursivePrefix":                     storagetesting.RunTestGetListRecursivePrefix,
		"GuaranteedUpdateWithTTL":                    storagetesting.RunTestGuaranteedUpdateWithTTL,
		"GuaranteedUpdateWithConflict":               storagetesting.RunTestGuaranteedUpdateWithConflict,
		"GuaranteedUpdateWithSuggestionAndConflict":  storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict,
		"ListPaging":                             storagetesting.RunTestListPaging,
		"NamespaceScopedList":                    storagetesting.RunTestNamespaceScopedList,
		"KeySchema":                              storagetesting.RunTestKeySchema,
		"Watch":                                  storagetesting.RunTestWatch,
		"DeleteTriggerWatch":                     storagetesting.RunTestDeleteTriggerWatch,
		"WatchFromNonZero":                       storagetesting.RunTestWatchFromNonZero,
		"DelayedWatchDelivery":                   storagetesting.RunTestDelayedWatchDelivery,
		"WatchContextCancel":                     storagetesting.RunTestWatchContextCancel,
		"WatcherTimeout":                         storagetesting.RunTestWatcherTimeout,
		"WatchDeleteEventObjectHaveLatestRV":     storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV,
		"WatchInitializationSignal":              storagetesting.RunTestWatchInitializationSignal,
		"ClusterScopedWatch":                     storagetesting.RunTestClusterScopedWatch,
		"NamespaceScopedWatch":                   storagetesting.RunTestNamespaceScopedWatch,
		"SendInitialEventsBackwardCompatibility": storagetesting.RunSendInitialEventsBackwardCompatibility,
		"WatchSemantics":                         storagetesting.RunWatchSemantics,
		"WatchSemanticInitialEventsExtended":     storagetesting.RunWatchSemanticInitialEventsExtended,
		"WatchListMatchSingle":                   storagetesting.RunWatchListMatchSingle,
		"OptionalWatchBookmarksWithCorrectResourceVersion": storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion,
	}
	for name, run := range plain {
		t.Run(name, func(t *testing.T) {
			ctx, s := setup(t)
			run(ctx, t, s)
		})
	}
	hooked := map[string]func(context.Context, *testing.T, suiteStore){
		"Create": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestCreate(ctx, t, s, unchecked)
		},
		"List": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestList(ctx, t, s, compaction(s), false, nil)
		},
		"ConsistentList": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestConsistentList(ctx, t, s, increase(s), false, true, false)
		},
		"GetListNonRecursive": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestGetListNonRecursive(ctx, t, increase(s), s)
		},
		"ListContinuation": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestListContinuation(ctx, t, s, nil)
		},
		"ListPaginationRareObject": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestListPaginationRareObject(ctx, t, s, nil)
		},
		"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestListContinuationWithFilter(ctx, t, s, nil)
		},
		"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestListInconsistentContinuation(ctx, t, s, compaction(s))
		},
		"CompactRevision": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestCompactRevision(ctx, t, s, increase(s), compaction(s))
		},
		"Stats": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestStats(ctx, t, s, s.Codec, s.Transformer, false)
		},
		"WatchFromZero": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestWatchFromZero(ctx, t, s, compaction(s))
		},
		"ProgressNotify": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunOptionalTestProgressNotify(ctx, t, s, increase(s))
		},
		"WatchDispatchBookmarkEvents": func(ctx context.Context, t *testing.T, s suiteStore) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, s, true)
		},
	}
	for name, run := range hooked {
		t.Run(name, func(t *testing.T) {
			ctx, s := setup(t)
			run(ctx, t, s)
		})
	}
	t.Run("StatsWithSizes", func(t *testing.T) {
		ctx, s := setup(t)
		if err := s.EnableResourceSizeEstimation(func(context.Context) ([]string, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
		storagetesting.RunTestStats(ctx, t, s, s.Codec, s.Transformer, true)
	})
}
