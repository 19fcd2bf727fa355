package rootca

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func TestAReplacedAuthorityReachesEveryNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		active := func(name string) *corev1.Namespace {
			return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}}
		}
		client := fake.NewClientset(active("one"), active("two"))
		factory := informers.NewSharedInformerFactory(client, 0)
		var bundle atomic.Value
		bundle.Store("old")
		c := New(client, factory, func() ([]byte, error) { return []byte(bundle.Load().(string)), nil }, slog.New(slog.DiscardHandler))
		var running sync.WaitGroup
		running.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		factory.Start(ctx.Done())
		published := func(want string) {
			t.Helper()
			for _, namespace := range []string{"one", "two"} {
				got, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
				if err != nil || got.Data["ca.crt"] != want {
					t.Errorf("%s: got %v, %v; want %q", namespace, got, err, want)
				}
			}
		}
		time.Sleep(time.Second)
		published("old")
		bundle.Store("old and new")
		time.Sleep(2 * rereadEvery)
		published("old and new")
		cancel()
		running.Wait()
		factory.Shutdown()
	})
}
