package admission

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func podWith(change func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c"}}}}
	if change != nil {
		change(p)
	}
	return p
}

func cpu(amount string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse(amount)}
	}
}

func port(number int32, ip string) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: number, HostIP: ip}} }
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	node := Node{Object: &v1.Node{}, Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourcePods: resource.MustParse("2")}, UnsafeSysctls: []string{"net.core.*", "kernel.msgmax"}, SELinux: true}
	node.Object.Labels = map[string]string{"zone": "a"}
	node.Object.Status.Allocatable = v1.ResourceList{"example.com/gpu": resource.MustParse("1")}
	gpus := func(name v1.ResourceName, amount string) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.Containers[0].Resources.Requests = v1.ResourceList{name: resource.MustParse(amount)}
		}
	}
	node.Object.Spec.Taints = []v1.Taint{{Key: "gone", Effect: v1.TaintEffectNoExecute}, {Key: "full", Effect: v1.TaintEffectNoSchedule}}
	tolerate := func(p *v1.Pod) { p.Spec.Tolerations = []v1.Toleration{{Key: "gone", Operator: v1.TolerationOpExists}} }
	both := func(fs ...func(*v1.Pod)) func(*v1.Pod) {
		return func(p *v1.Pod) {
			tolerate(p)
			for _, f := range fs {
				f(p)
			}
		}
	}
	sysctl := func(name string) func(*v1.Pod) {
		return func(p *v1.Pod) { p.Spec.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: name}}} }
	}
	for name, test := range map[string]struct {
		pod             *v1.Pod
		active          []*v1.Pod
		reason, message string
	}{
		"a small pod fits": {pod: podWith(tolerate)},
		"too much CPU":     {podWith(both(cpu("1500m"))), []*v1.Pod{podWith(cpu("1"))}, "OutOfcpu", "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"},
		"too many pods":    {podWith(tolerate), []*v1.Pod{podWith(nil), podWith(nil)}, "OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"},
		"a resource that somebody says the node has": {pod: podWith(both(gpus("example.com/gpu", "1")))},
		"more of that": {podWith(both(gpus("example.com/gpu", "2"))), nil, "OutOfexample.com/gpu", "Node didn't have enough resource: example.com/gpu, requested: 2, used: 0, capacity: 1"},
		"a resource of the cluster that no node has": {pod: podWith(both(gpus("example.com/license", "1")))},
		"another zone":                     {podWith(both(func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "b"} })), nil, "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		"a taint that drives out":          {podWith(nil), nil, "TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"},
		"a taken port":                     {podWith(both(port(80, ""))), []*v1.Pod{podWith(port(80, "10.0.0.1"))}, "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		"the same port of another address": {pod: podWith(both(port(80, "10.0.0.2"))), active: []*v1.Pod{podWith(port(80, "10.0.0.1"))}},
		"a safe sysctl":                    {pod: podWith(both(sysctl("net.ipv4.tcp_syncookies")))},
		"an unsafe sysctl that is allowed": {pod: podWith(both(sysctl("net/core/somaxconn")))},
		"another one":                      {pod: podWith(both(sysctl("kernel.msgmax")))},
		"an unsafe sysctl":                 {podWith(both(sysctl("kernel.msgmnb"))), nil, "SysctlForbidden", `forbidden sysctl: "kernel.msgmnb" not allowlisted`},
		"one of the host's network": {podWith(both(sysctl("net/core/somaxconn"), func(p *v1.Pod) { p.Spec.HostNetwork = true })), nil, "SysctlForbidden",
			`forbidden sysctl: "net.core.somaxconn" not allowed with host Net enabled`},
		"one of the host's IPC": {podWith(both(sysctl("kernel.shm_rmid_forced"), func(p *v1.Pod) { p.Spec.HostIPC = true })), nil, "SysctlForbidden",
			`forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host IPC enabled`},
		"AppArmor where there is none": {podWith(both(func(p *v1.Pod) {
			p.Spec.SecurityContext = &v1.PodSecurityContext{AppArmorProfile: &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeRuntimeDefault}}
		})), nil, "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"},
		"a label where there are labels": {podWith(both(func(p *v1.Pod) {
			p.Spec.Containers[0].SecurityContext = &v1.SecurityContext{SELinuxOptions: &v1.SELinuxOptions{Type: "spc_t"}}
		})), nil, "SELinux", "Cannot apply seLinuxOptions: this node's containers are not labelled"},
		"no AppArmor": {pod: podWith(both(func(p *v1.Pod) {
			p.Spec.Containers[0].SecurityContext = &v1.SecurityContext{AppArmorProfile: &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeUnconfined}}
		}))},
		"another operating system": {podWith(both(func(p *v1.Pod) { p.Spec.OS = &v1.PodOS{Name: v1.Windows} })), nil, "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"},
		"a label of another operating system": {podWith(both(func(p *v1.Pod) { p.Labels = map[string]string{v1.LabelOSStable: "windows"} })), nil,
			"PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reason, message, ok := Admit(test.pod, test.active, node)
			if ok != (test.reason == "") || reason != test.reason || message != test.message {
				t.Errorf("%v %q %q", ok, reason, message)
			}
		})
	}
}
