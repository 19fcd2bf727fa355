package policy

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/skiff-run/skiff/internal/testenv"
)

// start runs a controller on the node until stop is called.
func (w *world) start(client *fake.Clientset, file string) (stop func()) {
	w.t.Helper()
	nodes := informers.NewSharedInformerFactory(client, 0)
	ctx, cancel := context.WithCancel(w.t.Context())
	node := nodes.Core().V1().Nodes().Informer()
	ended, made := make(chan error, 1), make(chan error, 1)
	go func() {
		ended <- w.hosts["node"].In(func() error {
			c, err := New(Config{Client: client, NodeName: "here", Node: node, StateFile: file, Logger: slog.New(slog.DiscardHandler)})
			made <- err
			if err != nil {
				return err
			}
			return c.Run(ctx)
		})
	}()
	if err := <-made; err != nil {
		w.t.Fatal(err)
	}
	nodes.StartWithContext(ctx)
	return func() {
		cancel()
		nodes.Shutdown()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) until(what, line string) {
	w.t.Helper()
	testenv.Eventually(w.t, 30*time.Second, func() bool {
		text, closed := strings.CutPrefix(line, "-")
		path, network, _ := strings.Cut(text, "/")
		from, to, _ := strings.Cut(path, ">")
		got := w.reach(network, from, to, silenceLimit)
		return closed == (got == "silent")
	}, "%s: %s", what, line)
}

func watched(client *fake.Clientset, resource string) bool {
	for _, action := range client.Actions() {
		if action.GetVerb() == "watch" && action.GetResource().Resource == resource {
			return true
		}
	}
	return false
}

func TestTheControllerFollowsTheAPI(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	w := newWorld(t, 0)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}
	for _, r := range ranges {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, r.String())
	}
	client := fake.NewClientset(node)
	for _, p := range input().Pods {
		if err := client.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range input().Namespaces {
		if err := client.Tracker().Add(n); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "state", "policies")
	stop := w.start(client, file)
	testenv.Eventually(t, 30*time.Second, func() bool { return watched(client, "networkpolicies") }, "policies are not watched")
	w.expect("db>web:80/tcp")
	if watched(client, "pods") || watched(client, "namespaces") {
		t.Error("pods are watched without any policy")
	}

	ctx := t.Context()
	policies := client.NetworkingV1().NetworkPolicies("shop")
	web := policyFor("web", in(nil, app("client")))
	if _, err := policies.Create(ctx, web, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("the policy closes the pod", "-db>web:80/tcp")
	if !watched(client, "pods") {
		t.Error("pods are not watched")
	}
	db := podOf("db")
	db.Labels["app"] = "client"
	if _, err := client.CoreV1().Pods("shop").Update(ctx, db, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("a pod's new label opens it", "db>web:80/tcp")
	other := web.DeepCopy()
	other.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{team("field")}}}
	if _, err := policies.Update(ctx, other, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("the policy's new rule closes it", "-db>web:80/tcp")
	if _, err := client.CoreV1().Namespaces().Update(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "office", Labels: map[string]string{"team": "field"}}}, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("a namespace's new label opens it", "far>web:80/tcp")

	stop()
	w.expect("-db>web:80/tcp far>web:80/tcp") // the rules stay
	if output, err := w.nft("flush ruleset"); err != nil {
		t.Fatal(output)
	}
	// The machine starts anew, and the API is not there.
	gone, cancel := context.WithCancel(ctx)
	w.hosts["node"].Must(func() error {
		c, err := New(Config{Client: fake.NewClientset(), NodeName: "here", Node: informers.NewSharedInformerFactory(client, 0).Core().V1().Nodes().Informer(), StateFile: file, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			err = c.Guard(gone)
		}
		return err
	})
	cancel()
	w.expect("-db>web:80/tcp -far>web:80/tcp -web>db:80/tcp node>web:80/tcp")

	defer w.start(client, file)()
	w.until("the policy is in place again", "far>web:80/tcp")
	w.expect("-db>web:80/tcp web>db:80/tcp")
	if err := policies.Delete(ctx, web.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("without policies all is open", "db>web:80/tcp")
	testenv.Eventually(t, 30*time.Second, func() bool { _, err := os.Stat(file); return os.IsNotExist(err) }, "that there were policies is not forgotten")
}
