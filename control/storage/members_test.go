package storage_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"

	"github.com/skiff-run/skiff/raftstore/storetest"
)

func examplePod(name string) *example.Pod {
	return &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
}

const podPrefix = "/pods/ns/"

// What was answered anywhere is seen everywhere by who asks for the newest
// state, and a member reads its own writes even when asked for anything it has.
func TestEveryMemberReadsWhatAnyHasAnswered(t *testing.T) {
	t.Parallel()
	for layer := range layers {
		t.Run(layer, func(t *testing.T) {
			t.Parallel()
			var members []fixture
			for _, store := range storetest.Open(t, 3) {
				members = append(members, newFixture(t, layer, store, nil))
			}
			for i := range 30 {
				writer, reader := members[i%3], members[(i+1+i/3%2)%3]
				name := fmt.Sprint("pod-", i)
				created := &example.Pod{}
				if err := writer.Create(t.Context(), podPrefix+name, examplePod(name), created, 0); err != nil {
					t.Fatal(err)
				}
				own := &example.Pod{}
				if err := writer.Get(t.Context(), podPrefix+name, storage.GetOptions{ResourceVersion: "0"}, own); err != nil || own.ResourceVersion != created.ResourceVersion {
					t.Fatalf("the member that wrote %s reads %q, %v", name, own.ResourceVersion, err)
				}
				newest := &example.Pod{}
				if err := reader.Get(t.Context(), podPrefix+name, storage.GetOptions{}, newest); err != nil || newest.ResourceVersion != created.ResourceVersion {
					t.Fatalf("another member reads %q of %s, %v", newest.ResourceVersion, name, err)
				}
				// The update starts from what that member knows and must not lose a write.
				for range 2 {
					if err := reader.GuaranteedUpdate(t.Context(), podPrefix+name, newest, false, nil, storage.SimpleUpdate(func(object runtime.Object) (runtime.Object, error) {
						pod := object.(*example.Pod)
						pod.Generation++
						return pod, nil
					}), nil); err != nil {
						t.Fatal(err)
					}
				}
				list := &example.PodList{}
				if err := members[(i+2)%3].GetList(t.Context(), podPrefix, storage.ListOptions{Recursive: true, Predicate: storage.Everything}, list); err != nil {
					t.Fatal(err)
				}
				if len(list.Items) != i+1 {
					t.Fatalf("a list has %d of %d pods", len(list.Items), i+1)
				}
				if err := writer.GuaranteedUpdate(t.Context(), podPrefix+name, own, false, nil, storage.SimpleUpdate(func(object runtime.Object) (runtime.Object, error) {
					if pod := object.(*example.Pod); pod.Generation != 2 {
						return nil, fmt.Errorf("the update starts from generation %d", pod.Generation)
					}
					return object, nil
				}), nil); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Without a majority nothing consistent is answered and nothing is written:
// clients are told when to try again. What is known is still served to who asks
// for anything.
func TestWithoutAMajorityClientsAreToldToTryAgain(t *testing.T) {
	t.Parallel()
	stores := storetest.Open(t, 3)
	last := newFixture(t, "cached", stores[2], nil)
	if err := last.Create(t.Context(), podPrefix+"known", examplePod("known"), nil, 0); err != nil {
		t.Fatal(err)
	}
	for _, store := range stores[:2] {
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := last.Get(t.Context(), podPrefix+"known", storage.GetOptions{ResourceVersion: "0"}, &example.Pod{}); err != nil {
		t.Errorf("what is known: %v", err)
	}
	refused := func(what string, err error, codes ...int32) {
		t.Helper()
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			t.Errorf("%s: %v has no status", what, err)
			return
		}
		for _, code := range codes {
			if status.Status().Code == code {
				return
			}
		}
		t.Errorf("%s: %d %v, want %v", what, status.Status().Code, err, codes)
	}
	err := last.Get(t.Context(), podPrefix+"known", storage.GetOptions{}, &example.Pod{})
	refused("the newest state", err, http.StatusServiceUnavailable)
	if seconds, retry := apierrors.SuggestsClientDelay(err); !retry || seconds < 1 {
		t.Errorf("the client is not told when to try again: %v", err)
	}
	refused("a list", last.GetList(t.Context(), podPrefix, storage.ListOptions{Recursive: true, Predicate: storage.Everything}, &example.PodList{}), http.StatusServiceUnavailable)
	refused("a write", last.Create(t.Context(), podPrefix+"new", examplePod("new"), nil, 0), http.StatusServiceUnavailable, http.StatusGatewayTimeout)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	refused("a write with little time", last.Create(short, podPrefix+"new", examplePod("new"), nil, 0), http.StatusServiceUnavailable, http.StatusGatewayTimeout)
	events, err := last.Watch(t.Context(), podPrefix, storage.ListOptions{Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	refused("a watch from now", apierrors.FromObject((<-events.ResultChan()).Object), http.StatusServiceUnavailable)
}
