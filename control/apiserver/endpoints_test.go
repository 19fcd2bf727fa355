package apiserver

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/raftstore"
)

func TestEveryLivingAPIServerIsPublishedAndNoOther(t *testing.T) {
	t.Parallel()
	store, err := raftstore.Open(t.Context(), raftstore.Options{Dir: t.TempDir(), MemberID: "one", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	client := fake.NewClientset()
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	start := func(address string) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		s := &Server{config: Config{Store: store, Logger: slog.New(slog.DiscardHandler), AdvertiseAddress: netip.MustParseAddr(address), AdvertisePort: 6443}, client: client}
		running.Go(func() { s.publish(ctx) })
		return cancel
	}
	published := func(want ...string) {
		t.Helper()
		testenv.Eventually(t, time.Minute, func() bool {
			var fromEndpoints, fromSlice []string
			endpoints, err := client.CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
			if err != nil {
				return false
			}
			for _, address := range endpoints.Subsets[0].Addresses {
				fromEndpoints = append(fromEndpoints, address.IP)
			}
			slice, err := client.DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
			if err != nil {
				return false
			}
			for _, endpoint := range slice.Endpoints {
				fromSlice = append(fromSlice, endpoint.Addresses...)
			}
			return slices.Equal(fromEndpoints, want) && slices.Equal(fromSlice, want)
		}, "published is not %v", want)
	}
	stopFirst := start("192.0.2.2")
	published("192.0.2.2")
	start("192.0.2.1")
	published("192.0.2.1", "192.0.2.2")
	stopFirst()
	published("192.0.2.1")
	// One that was killed leaves its lease to end.
	if _, err := store.Put(t.Context(), raftstore.PutRequest{Key: serverLeases + "192.0.2.3", Value: []byte("{}"), ExpectModRevision: raftstore.AnyRevision, TTLSeconds: 2}); err != nil {
		t.Fatal(err)
	}
	published("192.0.2.1", "192.0.2.3")
	published("192.0.2.1")
}
