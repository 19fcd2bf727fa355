package loadbalancer

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/controllers/internal/fakeapi"
	"github.com/skiff-run/skiff/internal/addresspool"
	"github.com/skiff-run/skiff/internal/testenv"
)

const limit = 20 * time.Second

type fixture struct {
	t      *testing.T
	client *fakeapi.Client
}

func start(t *testing.T, ranges ...string) *fixture {
	t.Helper()
	pool, err := addresspool.ParseAll(ranges)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t, fakeapi.New()}
	factory := informers.NewSharedInformerFactory(f.client, 0)
	c := New(f.client, factory, pool, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	f.client.Start(ctx, factory)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		factory.Shutdown()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) create(name string, change func(*corev1.Service)) {
	f.t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
	}}
	if change != nil {
		change(s)
	}
	if _, err := f.client.CoreV1().Services("default").Create(f.t.Context(), s, metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) get(name string) *corev1.Service {
	f.t.Helper()
	s, err := f.client.CoreV1().Services("default").Get(f.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// has waits until a service has these addresses, with commas between.
func (f *fixture) has(name, want string) {
	f.t.Helper()
	var got string
	testenv.Eventually(f.t, limit, func() bool {
		var all []string
		for _, i := range f.get(name).Status.LoadBalancer.Ingress {
			all = append(all, i.IP)
		}
		got = strings.Join(all, ",")
		return got == want
	}, "service %s has not %q", name, want)
}

// told waits for an event about a service.
func (f *fixture) told(name, reason, part string) {
	f.t.Helper()
	testenv.Eventually(f.t, limit, func() bool {
		events, err := f.client.CoreV1().Events("default").List(f.t.Context(), metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return e.InvolvedObject.Name == name && e.Reason == reason && strings.Contains(e.Message, part)
		})
	}, "service %s: no event %s with %q", name, reason, part)
}

func TestServicesGetAddressesAndGiveThemBack(t *testing.T) {
	t.Parallel()
	f := start(t, "192.0.2.10-192.0.2.11", "2001:db8::/120")
	f.create("one", nil)
	f.has("one", "192.0.2.10")
	one := f.get("one")
	if !slices.Contains(one.Finalizers, finalizer) || one.Annotations[addresspool.Mark] != marked || *one.Status.LoadBalancer.Ingress[0].IPMode != corev1.LoadBalancerIPModeVIP {
		t.Errorf("got %v, %v, %v", one.Finalizers, one.Annotations, one.Status.LoadBalancer)
	}
	f.told("one", "EnsuredLoadBalancer", "Ensured load balancer")
	f.create("both", func(s *corev1.Service) {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
	})
	f.has("both", "2001:db8::,192.0.2.11")
	f.create("late", nil)
	f.told("late", "SyncLoadBalancerFailed", "the address pool has no free address of the family IPv4")

	one.Spec.Type = corev1.ServiceTypeClusterIP
	if _, err := f.client.CoreV1().Services("default").Update(t.Context(), one, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.has("one", "")
	f.has("late", "192.0.2.10")
	one = f.get("one")
	if slices.Contains(one.Finalizers, finalizer) || one.Annotations[addresspool.Mark] != "" {
		t.Errorf("got %v, %v", one.Finalizers, one.Annotations)
	}
	f.told("one", "DeletedLoadBalancer", "Deleted load balancer")
}

func TestAddressesThatServicesAskFor(t *testing.T) {
	t.Parallel()
	f := start(t, "192.0.2.10-192.0.2.19")
	f.create("field", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.15" })
	f.has("field", "192.0.2.15")
	f.create("annotation", func(s *corev1.Service) { s.Annotations = map[string]string{addresspool.Requested: "192.0.2.12"} })
	f.has("annotation", "192.0.2.12")
	f.create("taken", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.15" })
	f.told("taken", "SyncLoadBalancerFailed", "requested address 192.0.2.15 is in use by service default/field")
	f.create("strange", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "198.51.100.1" })
	f.told("strange", "SyncLoadBalancerFailed", "requested address 198.51.100.1 is not in the address pool")
	f.create("first", nil)
	f.has("first", "192.0.2.10")
}

func TestServicesOfOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	f := start(t, "192.0.2.10-192.0.2.19")
	theirs := func(s *corev1.Service) {
		s.Spec.LoadBalancerClass = ptr.To("example.org/theirs")
		s.Finalizers = []string{finalizer}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
	}
	f.create("theirs", theirs)
	f.create("ours", func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr.To(addresspool.Class) })
	f.has("ours", "192.0.2.10")
	f.has("theirs", "203.0.113.1")
	if s := f.get("theirs"); len(s.Annotations) > 0 || len(s.Finalizers) != 1 {
		t.Errorf("got %v, %v", s.Annotations, s.Finalizers)
	}
	none := start(t)
	none.create("ours", func(s *corev1.Service) { s.Annotations = map[string]string{addresspool.Mark: marked}; theirs(s) })
	none.has("ours", "") // the pool was taken away
	none.create("theirs", func(s *corev1.Service) { theirs(s); s.Spec.LoadBalancerClass = nil })
	none.has("theirs", "203.0.113.1")
}
