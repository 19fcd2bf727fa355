package admission

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func asks(name string, priority int32, class v1.PodQOSClass, cpu string) *v1.Pod {
	p := &v1.Pod{Spec: v1.PodSpec{Priority: &priority, Containers: []v1.Container{{Name: "c"}}}}
	p.Name, p.Status.QOSClass = name, class
	if cpu != "" {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}
	}
	return p
}

func TestCriticalPodsTakeThePlaceOfOthers(t *testing.T) {
	t.Parallel()
	const critical = 2000000000
	node := Node{Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("4"), v1.ResourcePods: resource.MustParse("5")}}
	active := []*v1.Pod{
		asks("besteffort", 0, v1.PodQOSBestEffort, ""), asks("small", 0, v1.PodQOSBurstable, "500m"), asks("large", 0, v1.PodQOSBurstable, "1500m"),
		asks("guaranteed", 0, v1.PodQOSGuaranteed, "1"), asks("system", critical, v1.PodQOSGuaranteed, "1"),
	}
	for name, c := range map[string]struct {
		pod       *v1.Pod
		node      Node
		want, err string
		no        bool
	}{
		"an ordinary pod takes nobody's place":          {pod: asks("p", 100, v1.PodQOSBurstable, "1"), no: true},
		"a place for a pod costs a best-effort one":     {pod: asks("p", critical, v1.PodQOSBestEffort, ""), want: "besteffort"},
		"the pod that is just large enough goes":        {pod: asks("p", critical, v1.PodQOSBurstable, "400m"), want: "small"},
		"more costs the larger one":                     {pod: asks("p", critical, v1.PodQOSBurstable, "1"), want: "large"},
		"guaranteed pods go when others do not suffice": {pod: asks("p", critical, v1.PodQOSBurstable, "3"), want: "large small guaranteed"},
		"other critical pods stay":                      {pod: asks("p", critical, v1.PodQOSBurstable, "4"), err: "no set of running pods found to reclaim resources: [(res: cpu, q: 1000), ]"},
		"unless they are less so":                       {pod: asks("p", critical+1, v1.PodQOSBurstable, "4"), want: "large small system guaranteed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := node
			if c.want != "besteffort" {
				n.Allocatable = n.Allocatable.DeepCopy()
				n.Allocatable[v1.ResourcePods] = resource.MustParse("9")
			}
			victims, err, tried := Victims(c.pod, active, n)
			if tried == c.no {
				t.Fatalf("tried: %v", tried)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			var names []string
			for _, v := range victims {
				names = append(names, v.Name)
			}
			got := strings.Join(names, " ")
			if got != c.want {
				t.Errorf("victims %q, want %q", got, c.want)
			}
		})
	}
}

func TestResourcesTheNodeDoesNotKnowAreCountedElsewhere(t *testing.T) {
	t.Parallel()
	pod := asks("p", 0, v1.PodQOSBurstable, "1")
	pod.Spec.Containers[0].Resources.Requests["example.com/license"] = resource.MustParse("1")
	node := Node{Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("4"), v1.ResourcePods: resource.MustParse("5")}}
	if reason, message, ok := Admit(pod, nil, node); !ok {
		t.Errorf("%s: %s", reason, message)
	}
	node.Allocatable["example.com/license"] = resource.MustParse("0")
	if reason, message, _ := Admit(pod, nil, node); reason != "OutOfexample.com/license" || message != "Node didn't have enough resource: example.com/license, requested: 1, used: 0, capacity: 0" {
		t.Errorf("%s: %s", reason, message)
	}
}
