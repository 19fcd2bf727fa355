package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/knftables"
)

// difference are the commands of a change, without the hashes in names.
func difference(from, to Input) []string {
	tx := knftables.NewFake(knftables.InetFamily, TableName).NewTransaction()
	Compile(to).transition(tx, Compile(from))
	return strings.Split(strings.TrimSpace(tx.String()), "\n")
}

func TestAChangeIsWrittenAloneWhateverElseThereIs(t *testing.T) {
	t.Parallel()
	web := policyFor("web", in(port("TCP", intstr.FromInt32(80), 0), app("db")))
	before := input(web, policyFor("db", closed("Egress")))
	if got := difference(before, before); len(got) != 1 || got[0] != "" {
		t.Errorf("no change: %v", got)
	}

	more := input(before.Policies...)
	extra := podOf("db")
	extra.Name, extra.UID, extra.Status.PodIPs = "db2", "2", []corev1.PodIP{{IP: "10.244.1.9"}}
	extra.Spec.NodeName = "elsewhere"
	more.Pods = append(more.Pods, extra)
	set := "pods4-" + hash("pods:app=db in shop")
	if diff := cmp.Diff([]string{"add element inet skiff-policy " + set + " { 10.244.1.9 }"}, difference(before, more)); diff != "" {
		t.Errorf("a peer elsewhere (-want +got):\n%s", diff)
	}

	extra.Spec.NodeName = "here"
	got := difference(before, more)
	pods, isolated := 0, 0
	for _, line := range got {
		if strings.Contains(line, "chain") || strings.Contains(line, "rule") {
			t.Errorf("a pod that policies select already: %s", line)
		}
		pods += strings.Count(line, set)
		isolated += strings.Count(line, "add element inet skiff-policy egress4")
	}
	if pods != 1 || isolated != 1 {
		t.Errorf("a pod here: %v", got)
	}
	// Each policy is there once, however many pods it selects.
	if r := Compile(more); len(r.chains) != len(Compile(before).chains) {
		t.Errorf("%d chains", len(r.chains))
	}
}

func TestPoliciesThatSelectNobodyHereCostNothing(t *testing.T) {
	t.Parallel()
	in := input(policyFor("elsewhere", in(nil, team("office"))))
	in.Pods[0].Spec.NodeName, in.Pods[1].Spec.NodeName = "elsewhere", "elsewhere"
	if got, want := len(Compile(in).chains), len(Guard(ranges, false).chains); got != want {
		t.Errorf("%d chains, want %d", got, want)
	}
}
