package core

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func parseNode(t *testing.T, manifest string) *corev1.Node {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "1", ResourceVersion: "1"}}
	if err := yaml.UnmarshalStrict([]byte(manifest), node); err != nil {
		t.Fatalf("parse %s: %v", manifest, err)
	}
	defaultNode(node)
	return node
}

func TestNodeUpdates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, old, updated string
		want               []string
	}{
		{"a node gets its pods' addresses", "{}", "spec: {podCIDR: 10.244.1.0/24}", nil},
		{"a node keeps its pods' addresses", "spec: {podCIDR: 10.244.1.0/24}", "spec: {podCIDR: 10.244.2.0/24}", []string{
			`spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`,
		}},
		{"a node does not lose its pods' addresses", "spec: {podCIDR: 10.244.1.0/24}", "{}", []string{
			`spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`,
		}},
		{"pods' addresses are a range of each family", "{}", "spec: {podCIDRs: [10.244.1.0/24, 10.244.2.0/24]}", []string{
			`spec.podCIDRs: Invalid value: ["10.244.1.0/24","10.244.2.0/24"]: may specify no more than one CIDR for each IP family`,
		}},
		{"a provider's name for a node is for good", "spec: {providerID: 'a://1'}", "spec: {providerID: 'a://2'}", []string{
			"spec.providerID: Invalid value: null: field cannot be modified once set",
		}},
		{"a node can be cordoned", "{}", "spec: {unschedulable: true}", nil},
		{"a taint has an effect", "{}", "spec: {taints: [{key: a}]}", []string{
			"metadata.taints[0].effect: Required value", "metadata.taints[0].effect: Required value",
		}},
		{"a taint is there once", "{}", "spec: {taints: [{key: a, effect: NoSchedule}, {key: a, value: b, effect: NoSchedule}]}", []string{
			`metadata.taints[1]: Duplicate value: {"key":"a","value":"b","effect":"NoSchedule"}: taints must be unique by key and effect pair`,
			`metadata.taints[1]: Duplicate value: {"key":"a","value":"b","effect":"NoSchedule"}: taints must be unique by key and effect pair`,
		}},
		{"a capacity is not negative", "{}", "status: {capacity: {pods: '-1'}, allocatable: {}}", []string{
			`status.capacity.pods: Invalid value: "-1": must be greater than or equal to 0`,
			`status.capacity.pods: Invalid value: "-1": must be greater than or equal to 0`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			node := parseNode(t, c.updated)
			var got []string
			for _, err := range append(validateNode(node), validateNodeUpdate(node, parseNode(t, c.old))...) {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatANodeCanAllocateIsItsCapacity(t *testing.T) {
	t.Parallel()
	node := parseNode(t, "status: {capacity: {cpu: '2', memory: 4Gi}}")
	if diff := cmp.Diff(node.Status.Capacity, node.Status.Allocatable); diff != "" {
		t.Errorf("allocatable (-capacity +got):\n%s", diff)
	}
	node.Status.Allocatable[corev1.ResourceCPU] = node.Status.Allocatable[corev1.ResourceMemory]
	if cpu := node.Status.Capacity[corev1.ResourceCPU]; cpu.String() != "2" {
		t.Errorf("capacity changed with what can be allocated: %s", cpu.String())
	}
}
