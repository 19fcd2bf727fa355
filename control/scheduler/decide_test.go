package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

type nodeOption func(*corev1.Node)
type podOption func(*corev1.Pod)

func makeNode(name string, options ...nodeOption) *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
	for _, option := range options {
		option(node)
	}
	return node
}

func makePod(name string, options ...podOption) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec:       corev1.PodSpec{SchedulerName: Name, Containers: []corev1.Container{{Name: "c", Image: "web"}}},
	}
	for _, option := range options {
		option(pod)
	}
	return pod
}

func label(key, value string) nodeOption { return func(n *corev1.Node) { n.Labels[key] = value } }
func taint(effect corev1.TaintEffect) nodeOption {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "k", Effect: effect}) }
}
func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }

func requests(cpu string) podOption {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
}
func on(node string) podOption { return func(p *corev1.Pod) { p.Spec.NodeName = node } }
func app(name string) podOption {
	return func(p *corev1.Pod) { p.Labels = map[string]string{"app": name} }
}
func priority(value int32) podOption { return func(p *corev1.Pod) { p.Spec.Priority = &value } }
func hostPort(port int32) podOption {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: port, HostPort: port}}
	}
}
func term(key, name string) []corev1.PodAffinityTerm {
	return []corev1.PodAffinityTerm{{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}}}
}
func near(key, name string) podOption {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term(key, name)}}
	}
}
func awayFrom(key, name string) podOption {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term(key, name)}}
	}
}
func spreadOver(key, name string) podOption {
	return func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
		}}
	}
}

func info(t testing.TB, pod *corev1.Pod) *framework.PodInfo {
	t.Helper()
	i, err := framework.NewPodInfo(pod)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func snapshotOf(t testing.TB, nodes []*corev1.Node, pods ...*corev1.Pod) *framework.Snapshot {
	t.Helper()
	c := newCache()
	for _, node := range nodes {
		c.setNode(node)
	}
	for _, pod := range pods {
		c.setPod(info(t, pod))
	}
	return c.snapshot(func(string) labels.Set { return nil })
}

func noSelector(*corev1.Pod) labels.Selector { return nil }

func TestAPodThatFitsNowhereIsToldWhyInKubernetesWords(t *testing.T) {
	t.Parallel()
	a, b := makeNode("a"), makeNode("b")
	for name, tc := range map[string]struct {
		nodes []*corev1.Node
		pods  []*corev1.Pod
		pod   *corev1.Pod
		want  string
	}{
		"no node at all": {pod: makePod("p"), want: "no nodes available to schedule pods"},
		"too large for the only node": {
			nodes: []*corev1.Node{a}, pod: makePod("p", requests("100")),
			want: "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
		},
		"the room is taken by an equal": {
			nodes: []*corev1.Node{a}, pods: []*corev1.Pod{makePod("x", on("a"), requests("1500m"))}, pod: makePod("p", requests("1")),
			want: "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
		},
		"different reasons are counted and sorted": {
			nodes: []*corev1.Node{makeNode("a", cordoned), makeNode("b", taint(corev1.TaintEffectNoSchedule)), makeNode("c", cordoned)}, pod: makePod("p"),
			want: "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) were unschedulable. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
		},
		"a selector no node has": {
			nodes: []*corev1.Node{a, b}, pod: makePod("p", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }),
			want: "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
		},
		"a host port in use": {
			nodes: []*corev1.Node{a}, pods: []*corev1.Pod{makePod("x", on("a"), hostPort(80))}, pod: makePod("p", hostPort(80)),
			want: "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
		},
		"affinity to pods that do not exist": {
			nodes: []*corev1.Node{a}, pod: makePod("p", near(corev1.LabelHostname, "db")),
			want: "0/1 nodes are available: 1 node(s) didn't match pod affinity rules. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
		},
		"anti-affinity of the new pod": {
			nodes: []*corev1.Node{a}, pods: []*corev1.Pod{makePod("x", on("a"), app("db"))}, pod: makePod("p", awayFrom(corev1.LabelHostname, "db")),
			want: "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
		},
		"anti-affinity of a pod that runs": {
			nodes: []*corev1.Node{a}, pods: []*corev1.Pod{makePod("x", on("a"), awayFrom(corev1.LabelHostname, "web"))}, pod: makePod("p", app("web")),
			want: "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
		},
		"a spread that would be too uneven": {
			nodes: []*corev1.Node{makeNode("a", label("zone", "1")), makeNode("b", label("zone", "2"), cordoned), makeNode("c")},
			pods:  []*corev1.Pod{makePod("x", on("a"), app("web"))}, pod: makePod("p", app("web"), spreadOver("zone", "web")),
			want: "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label), 1 node(s) were unschedulable. " +
				"preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.",
		},
		"no more pods allowed": {
			nodes: []*corev1.Node{makeNode("a", func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1") })},
			pods:  []*corev1.Pod{makePod("x", on("a"))}, pod: makePod("p"),
			want: "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
		},
		"a pod that may not preempt": {
			nodes: []*corev1.Node{a}, pod: makePod("p", requests("100"), func(p *corev1.Pod) { never := corev1.PreemptNever; p.Spec.PreemptionPolicy = &never }),
			want: "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, snapshot, pod := newDecider(noSelector, nil), snapshotOf(t, tc.nodes, tc.pods...), info(t, tc.pod)
			node, why := d.decide(pod, snapshot, nil)
			if node != "" {
				t.Fatalf("placed on %s", node)
			}
			preemption := ""
			if why.nodes > 0 {
				var found *candidate
				if found, preemption = d.preempt(pod, snapshot, why); found != nil {
					t.Fatalf("wants to preempt on %s", found.node)
				}
			}
			if got := why.message(preemption); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestTheBetterNodeIsChosen(t *testing.T) {
	t.Parallel()
	a, b := makeNode("a"), makeNode("b")
	for name, tc := range map[string]struct {
		nodes    []*corev1.Node
		pods     []*corev1.Pod
		pod      *corev1.Pod
		selector labels.Selector
		want     string
	}{
		"the emptier one":            {nodes: []*corev1.Node{a, b}, pods: []*corev1.Pod{makePod("x", on("a"), requests("1"))}, pod: makePod("p", requests("100m")), want: "b"},
		"the one it tolerates":       {nodes: []*corev1.Node{makeNode("a", taint(corev1.TaintEffectNoExecute)), b}, pod: makePod("p"), want: "b"},
		"the one without a soft no":  {nodes: []*corev1.Node{makeNode("a", taint(corev1.TaintEffectPreferNoSchedule)), b}, pod: makePod("p"), want: "b"},
		"beside its friend":          {nodes: []*corev1.Node{a, b}, pods: []*corev1.Pod{makePod("x", on("b"), app("db"), requests("1"))}, pod: makePod("p", near(corev1.LabelHostname, "db")), want: "b"},
		"the first of its own group": {nodes: []*corev1.Node{a}, pod: makePod("p", app("db"), near(corev1.LabelHostname, "db")), want: "a"},
		"away from its fellows": {
			nodes: []*corev1.Node{a, b}, pods: []*corev1.Pod{makePod("x", on("a"), app("web"))}, pod: makePod("p", app("web")),
			selector: labels.SelectorFromSet(labels.Set{"app": "web"}), want: "b",
		},
		"where its image is": {
			nodes: []*corev1.Node{a, makeNode("b", func(n *corev1.Node) {
				n.Status.Images = []corev1.ContainerImage{{Names: []string{"web:latest"}, SizeBytes: 900 << 20}}
			})}, pod: makePod("p"), want: "b",
		},
		"the zone with fewer": {
			nodes: []*corev1.Node{makeNode("a", label("zone", "1")), makeNode("b", label("zone", "2"))},
			pods:  []*corev1.Pod{makePod("x", on("a"), app("web"))}, pod: makePod("p", app("web"), spreadOver("zone", "web")), want: "b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecider(func(*corev1.Pod) labels.Selector { return tc.selector }, nil)
			node, why := d.decide(info(t, tc.pod), snapshotOf(t, tc.nodes, tc.pods...), nil)
			if node != tc.want {
				t.Errorf("got %q (%+v), want %q", node, why, tc.want)
			}
		})
	}
}

func TestPreemptionTakesTheLeastImportantAndNoMoreThanNeeded(t *testing.T) {
	t.Parallel()
	started := func(ago time.Duration) podOption {
		return func(p *corev1.Pod) { at := metav1.NewTime(time.Now().Add(-ago)); p.Status.StartTime = &at }
	}
	nodes := []*corev1.Node{makeNode("a"), makeNode("b")}
	pods := []*corev1.Pod{
		makePod("a-high", on("a"), requests("1500m"), priority(50), started(time.Hour)),
		makePod("b-old", on("b"), requests("900m"), priority(5), started(time.Hour)),
		makePod("b-young", on("b"), requests("900m"), priority(5), started(time.Minute)),
	}
	pod := info(t, makePod("p", requests("1"), priority(100)))
	d, snapshot := newDecider(noSelector, nil), snapshotOf(t, nodes, pods...)
	node, why := d.decide(pod, snapshot, nil)
	if node != "" {
		t.Fatalf("placed on %s", node)
	}
	found, text := d.preempt(pod, snapshot, why)
	if found == nil {
		t.Fatal(text)
	}
	var victims []string
	for _, victim := range found.victims {
		victims = append(victims, victim.Pod.Name)
	}
	if found.node != "b" || !slices.Equal(victims, []string{"b-young"}) {
		t.Errorf("got %s %v, want b [b-young]", found.node, victims)
	}
}

func TestRoomThatAnotherWaitsForIsNotTaken(t *testing.T) {
	t.Parallel()
	snapshot := snapshotOf(t, []*corev1.Node{makeNode("a")})
	waiting := map[string][]*framework.PodInfo{"a": {info(t, makePod("w", requests("1500m"), priority(10)))}}
	d := newDecider(noSelector, nil)
	if node, _ := d.decide(info(t, makePod("p", requests("1"), priority(5))), snapshot, waiting); node != "" {
		t.Error("a pod of lower priority took the room")
	}
	if node, _ := d.decide(info(t, makePod("p", requests("1"), priority(20))), snapshot, waiting); node != "a" {
		t.Error("a pod of higher priority was kept out")
	}
}

func BenchmarkDecideOn1000Nodes(b *testing.B) {
	c := newCache()
	for i := range 1000 {
		c.setNode(makeNode(fmt.Sprintf("n%d", i)))
	}
	d := newDecider(func(*corev1.Pod) labels.Selector { return labels.SelectorFromSet(labels.Set{"app": "web"}) }, nil)
	i := 0
	for b.Loop() {
		pod := info(b, makePod(fmt.Sprintf("p%d", i), app("web"), requests("1m")))
		i++
		node, _ := d.decide(pod, c.snapshot(func(string) labels.Set { return nil }), nil)
		c.assume(pod, node)
	}
}
