package storage_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"

	"github.com/skiff-run/skiff/control/storage/raw"
)

// The peer suite, k8s.io/apiserver/pkg/storage/testing, which etcd's storage
// and the watch cache pass upstream, on the real store: both layers, with one
// member, with three through the leader, and with three through a follower.

// plain are the tests of the suite that need nothing but a storage.
var plain = map[string]func(context.Context, *testing.T, storage.Interface){
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
	"DeleteWithSuggestionAndMissingExpectedTransformOrDecodeError": func(ctx context.Context, t *testing.T, s storage.Interface) {
		storagetesting.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(ctx, t, s)
	},
}

// hooked are those that look at the store or reach into the storage.
var hooked = map[string]func(context.Context, *testing.T, fixture){
	"Create": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestCreate(ctx, t, f, f.validKey)
	},
	"List": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestList(ctx, t, f, f.compact, false, nil)
	},
	"ConsistentList": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestConsistentList(ctx, t, f, f.increase, false, true, false)
	},
	"GetListNonRecursive": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestGetListNonRecursive(ctx, t, f.increase, f)
	},
	"ListContinuation": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestListContinuation(ctx, t, f, nil)
	},
	"ListPaginationRareObject": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestListPaginationRareObject(ctx, t, f, nil)
	},
	"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestListContinuationWithFilter(ctx, t, f, nil)
	},
	"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestListInconsistentContinuation(ctx, t, f, f.compact)
	},
	"CompactRevision": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestCompactRevision(ctx, t, f, f.increase, f.compact)
	},
	"Stats": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestStats(ctx, t, f, f.codec, f.raw.Transformer, false)
	},
	"StatsWithSizes": func(ctx context.Context, t *testing.T, f fixture) {
		if err := f.EnableResourceSizeEstimation(func(context.Context) ([]string, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
		storagetesting.RunTestStats(ctx, t, f, f.codec, f.raw.Transformer, true)
	},
	"WatchFromZero": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunTestWatchFromZero(ctx, t, f, f.compact)
	},
	"ProgressNotify": func(ctx context.Context, t *testing.T, f fixture) {
		storagetesting.RunOptionalTestProgressNotify(ctx, t, f, f.increase)
	},
}

// ofLayer are those that only one layer can pass: decoding at each read can be
// watched only where it happens (upstream's cache leaves the same ones out), and
// only the upper layer sends bookmarks at intervals.
var ofLayer = map[string]map[string]func(context.Context, *testing.T, fixture){
	"raw": {
		"ListResourceVersionMatch": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunTestListResourceVersionMatch(ctx, t, f)
		},
		"GuaranteedUpdate": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunTestGuaranteedUpdate(ctx, t, f, f.validKey)
		},
		"GuaranteedUpdateChecksStoredData": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunTestGuaranteedUpdateChecksStoredData(ctx, t, f)
		},
		"TransformationFailure": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunTestTransformationFailure(ctx, t, f)
		},
		"WatchError": func(ctx context.Context, t *testing.T, f fixture) { storagetesting.RunTestWatchError(ctx, t, f) },
		"WatchErrorIsBlockingFurtherEvents": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunWatchErrorIsBlockingFurtherEvents(ctx, t, f)
		},
		"GetListWithErrorAggregation": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunTestGetListWithErrorAggregation(ctx, t, f, corrupt(ctx))
		},
		"GetListWithoutErrorAggregation": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunTestGetListWithoutErrorAggregation(ctx, t, f, errors.New("bits flipped"))
		},
		"WatchWithUnsafeDelete": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunTestWatchWithUnsafeDelete(ctx, t, f, corrupt(ctx))
		},
	},
	"cached": {
		"OptionalWatchBookmarksWithCorrectResourceVersion": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion(ctx, t, f)
		},
		"WatchDispatchBookmarkEvents": func(ctx context.Context, t *testing.T, f fixture) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, f, true)
		},
	},
}

// moods are tests of deleting what cannot be read. Each runs with an object
// that cannot be decrypted and with one that cannot be decoded.
var moods = map[string]func(context.Context, testing.TB, storage.Interface, func(bool)){
	"DeleteWithConflictAndMissingExpectedTransformOrDecodeError": storagetesting.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError,
	"DeleteExpectedTransformOrDecodeError":                       storagetesting.RunTestDeleteExpectedTransformOrDecodeError,
}

// gated tests set feature gates of the whole process, and an object of Get has a
// second to live, so nothing may run beside them.
var gated = []string{"WatchSemantics", "WatchSemanticInitialEventsExtended", "WatchListMatchSingle", "Get"}

func runSuite(t *testing.T, layer string, where topology) {
	run := func(name string, change func(*raw.Config), test func(context.Context, *testing.T, fixture)) {
		t.Run(name, func(t *testing.T) {
			if !slices.Contains(gated, name) {
				t.Parallel()
			}
			test(t.Context(), t, newFixture(t, layer, where.open(t), change))
		})
	}
	for name, test := range plain {
		run(name, nil, func(ctx context.Context, t *testing.T, f fixture) { test(ctx, t, f) })
	}
	for name, test := range hooked {
		run(name, nil, test)
	}
	for name, test := range ofLayer[layer] {
		run(name, nil, test)
	}
	for name, test := range moods {
		decrypting, decoding := &moody{}, &moody{}
		run(name+"/decrypt", func(c *raw.Config) { c.Transformer = moodyTransformer{c.Transformer, decrypting} },
			func(ctx context.Context, t *testing.T, f fixture) { test(ctx, t, f, decrypting.failing.Store) })
		run(name+"/decode", func(c *raw.Config) { c.Codec = moodyCodec{c.Codec, decoding} },
			func(ctx context.Context, t *testing.T, f fixture) { test(ctx, t, f, decoding.failing.Store) })
	}
}

func TestSuite(t *testing.T) {
	for _, where := range []topology{{"one member", alone}, {"leader of three", leader}, {"follower of three", follower}} {
		for layer := range layers {
			t.Run(where.name+"/"+layer, func(t *testing.T) { runSuite(t, layer, where) })
		}
	}
}

// corrupt is the error of an object that cannot be decrypted.
func corrupt(ctx context.Context) error {
	failing := &moody{}
	failing.failing.Store(true)
	_, _, err := raw.TellCorrupt(raw.Config{Transformer: moodyTransformer{nil, failing}}).Transformer.TransformFromStorage(ctx, nil, nil)
	return err
}
