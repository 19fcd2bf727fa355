package node

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/internal/testenv"
)

// well is a runtime without complaints.
type well struct{}

func (well) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "1.6.20"}, nil
}

func (well) Status(context.Context, bool) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}}, nil
}

func (well) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	return nil, errors.ErrUnsupported
}

func version(resourceVersion string, ready v1.ConditionStatus) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "uid", ResourceVersion: resourceVersion}}
	n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: ready}}
	return n
}

func TestWhatIsOlderThanWhatIsKnownIsLeftAside(t *testing.T) {
	t.Parallel()
	again := version("3", v1.ConditionTrue)
	again.UID = "another"
	for name, tc := range map[string]struct {
		node   *v1.Node
		listed bool
		taken  bool
		looks  bool
	}{
		"an event overtaken by an answer":           {version("8", v1.ConditionFalse), false, false, false},
		"the same version":                          {version("9", v1.ConditionTrue), false, false, false},
		"a newer one that says the same":            {version("10", v1.ConditionTrue), false, true, false},
		"a newer one that says otherwise":           {version("10", v1.ConditionUnknown), false, true, true},
		"one of a restored store":                   {version("5", v1.ConditionUnknown), true, true, true},
		"a node that was deleted and made anew":     {again, false, true, false},
		"that it is gone":                           {nil, false, true, true},
		"a version longer in digits is newer":       {version("100", v1.ConditionTrue), false, true, false},
		"a version that is no number is taken over": {version("x", v1.ConditionFalse), false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := NewManager(Config{Name: "a"})
			known := version("9", v1.ConditionTrue)
			m.node = known
			m.Observed(tc.node, tc.listed)
			if taken := m.Object() != known; taken != tc.taken {
				t.Errorf("taken %t", taken)
			}
			looks := false
			select {
			case <-m.wake:
				looks = true
			case <-m.contradicted:
				looks = true
			default:
			}
			if looks != tc.looks {
				t.Errorf("looks %t", looks)
			}
		})
	}
}

func TestANodeThatOthersCallNotReadyContradictsAtOnce(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset()
	m := NewManager(Config{
		Client: client, Runtime: well{}, Events: record.NewFakeRecorder(100), Logger: slog.New(slog.DiscardHandler),
		Name: "a", IP: []byte{192, 0, 2, 1}, Pressure: func() Pressure { return Pressure{} }, Facts: &Facts{Capacity: v1.ResourceList{}},
	})
	peers := NewPeers(client, "a", m.Observed, func() {})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	for _, run := range []func(context.Context){m.Run, peers.Run} {
		go func() {
			run(ctx)
			ended <- struct{}{}
		}()
	}
	t.Cleanup(func() { cancel(); <-ended; <-ended })
	ready := func() v1.ConditionStatus {
		n, err := client.CoreV1().Nodes().Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			return ""
		}
		if c := conditionOf(n, v1.NodeReady); c != nil {
			return c.Status
		}
		return ""
	}
	testenv.Eventually(t, 20*time.Second, func() bool { return ready() == v1.ConditionTrue }, "the node does not become Ready")
	n, err := client.CoreV1().Nodes().Get(ctx, "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	conditionOf(n, v1.NodeReady).Status = v1.ConditionUnknown
	if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	// Well before the next look that is due anyhow.
	testenv.Eventually(t, lookEvery*3/4, func() bool { return ready() == v1.ConditionTrue }, "the node lets others call it unknown")
}

func TestWhatOthersSayTheNodeHasStays(t *testing.T) {
	t.Parallel()
	amounts := func(cpu string) v1.ResourceList { return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)} }
	m := NewManager(Config{Name: "a", Facts: &Facts{Capacity: amounts("4"), Offered: amounts("3")}})
	s := v1.NodeStatus{Capacity: amounts("2"), Allocatable: amounts("2")}
	s.Capacity["example.com/gpu"] = resource.MustParse("5")
	s.Capacity[v1.ResourceMemory] = resource.MustParse("1Gi")
	m.setAmounts(&s)
	for name, got := range map[string]v1.ResourceList{"capacity 4": s.Capacity, "allocatable 3": s.Allocatable} {
		gpu, cpu := got["example.com/gpu"], got[v1.ResourceCPU]
		if _, stale := got[v1.ResourceMemory]; gpu.Value() != 5 || !strings.HasSuffix(name, cpu.String()) || stale {
			t.Errorf("%s: %v", name, got)
		}
	}
}
