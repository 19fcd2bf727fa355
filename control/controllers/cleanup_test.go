package controllers

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"

	"github.com/skiff-run/skiff/control/controllers/clusterrole"
	"github.com/skiff-run/skiff/control/controllers/internal/fakeapi"
	"github.com/skiff-run/skiff/control/controllers/nodeipam"
	"github.com/skiff-run/skiff/control/controllers/podgc"
	"github.com/skiff-run/skiff/control/controllers/rootca"
	"github.com/skiff-run/skiff/control/controllers/serviceaccount"
	"github.com/skiff-run/skiff/control/controllers/tainteviction"
	"github.com/skiff-run/skiff/control/controllers/tokencleaner"
	"github.com/skiff-run/skiff/internal/testenv"
)

// house runs the small controllers on an API of their own.
func house(t *testing.T) *fakeapi.Client {
	t.Helper()
	client := fakeapi.New()
	factory := informers.NewSharedInformerFactory(client, 0)
	logger := slog.New(slog.DiscardHandler)
	must := func(c controller, err error) controller {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	pools := []nodeipam.Pool{{Range: netip.MustParsePrefix("10.244.0.0/16"), NodeMask: 24}}
	ranges, err := nodeipam.New(client, factory, pools, nil, logger)
	eviction, err2 := tainteviction.New(client, factory, logger)
	garbage, err3 := podgc.New(client, factory, podgc.Threshold, logger)
	runners := []controller{
		must(ranges, err), must(eviction, err2), must(garbage, err3),
		serviceaccount.New(client, factory, logger), rootca.New(client, factory, func() ([]byte, error) { return []byte("CA"), nil }, logger),
		clusterrole.New(client, factory, logger), tokencleaner.New(client, factory, logger),
	}
	ctx, cancel := context.WithCancel(context.Background())
	client.Start(ctx, factory)
	var running sync.WaitGroup
	for _, runner := range runners {
		running.Go(func() {
			if err := runner.Run(ctx); err != nil {
				t.Errorf("controller stopped: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait(); factory.Shutdown() })
	return client
}

func TestNamespaceGetsItsAccountAndTheCA(t *testing.T) {
	t.Parallel()
	client := house(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		_, err := client.CoreV1().ServiceAccounts("shop").Get(t.Context(), "default", metav1.GetOptions{})
		ca, err2 := client.CoreV1().ConfigMaps("shop").Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
		return err == nil && err2 == nil && ca.Data["ca.crt"] == "CA"
	}
	testenv.Eventually(t, limit, there, "the account or the CA is missing")
	if err := client.CoreV1().ServiceAccounts("shop").Delete(t.Context(), "default", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().ConfigMaps("shop").Delete(t.Context(), "kube-root-ca.crt", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, there, "they do not come back")
}

func TestNodesGetDifferentRanges(t *testing.T) {
	t.Parallel()
	client := house(t)
	for _, name := range []string{"a", "b", "c"} {
		if _, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, limit, func() bool {
		list, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, node := range list.Items {
			if node.Spec.PodCIDR == "" || len(node.Spec.PodCIDRs) != 1 || node.Spec.PodCIDRs[0] != node.Spec.PodCIDR {
				return false
			}
			seen[node.Spec.PodCIDR] = true
		}
		return len(seen) == 3
	}, "three nodes do not have three ranges")
}

func TestTaintDrivesPodsAway(t *testing.T) {
	t.Parallel()
	client := house(t)
	node, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods := client.CoreV1().Pods("shop")
	for name, tolerations := range map[string][]corev1.Toleration{
		"fragile": nil, "daemon": {{Operator: corev1.TolerationOpExists}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: "a", Tolerations: tolerations}}
		if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, limit, func() bool {
		node, err = client.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
		return err == nil && node.Spec.PodCIDR != ""
	}, "the node has no range")
	node.Spec.Taints = []corev1.Taint{{Key: "broken", Effect: corev1.TaintEffectNoExecute}}
	if _, err := client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, func() bool {
		_, err := pods.Get(t.Context(), "fragile", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, "the pod stays on the tainted node")
	if _, err := pods.Get(t.Context(), "daemon", metav1.GetOptions{}); err != nil {
		t.Errorf("the pod that tolerates everything: %v", err)
	}
}

func TestUnscheduledPodBeingDeletedGoes(t *testing.T) {
	t.Parallel()
	client := house(t)
	now := metav1.Now()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pending", DeletionTimestamp: &now, Finalizers: []string{"x"}}}
	if _, err := client.CoreV1().Pods("shop").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, func() bool {
		_, err := client.CoreV1().Pods("shop").Get(t.Context(), "pending", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, "the pod stays")
}

func TestRolesAreAggregated(t *testing.T) {
	t.Parallel()
	client := house(t)
	roles := client.RbacV1().ClusterRoles()
	rule := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}
	for _, role := range []*rbacv1.ClusterRole{
		{ObjectMeta: metav1.ObjectMeta{Name: "all"}, AggregationRule: &rbacv1.AggregationRule{
			ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"to": "all"}}},
		}},
		{ObjectMeta: metav1.ObjectMeta{Name: "one", Labels: map[string]string{"to": "all"}}, Rules: []rbacv1.PolicyRule{rule}},
	} {
		if _, err := roles.Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, limit, func() bool {
		role, err := roles.Get(t.Context(), "all", metav1.GetOptions{})
		return err == nil && len(role.Rules) == 1 && role.Rules[0].Resources[0] == "pods"
	}, "the rules were not aggregated")
}

func TestExpiredTokensGo(t *testing.T) {
	t.Parallel()
	client := house(t)
	secrets := client.CoreV1().Secrets(metav1.NamespaceSystem)
	for name, expiration := range map[string]time.Time{"old": time.Now().Add(-time.Hour), "soon": time.Now().Add(time.Second), "fresh": time.Now().Add(time.Hour)} {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Type: "bootstrap.kubernetes.io/token",
			Data: map[string][]byte{"expiration": []byte(expiration.Format(time.RFC3339))},
		}
		if _, err := secrets.Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, limit, func() bool {
		list, err := secrets.List(t.Context(), metav1.ListOptions{})
		return err == nil && len(list.Items) == 1 && list.Items[0].Name == "fresh"
	}, "not exactly the fresh token is left")
}
