package apiserver

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/internal/pki"
)

func TestResourcesAreDecidedOnOnceTheRolesAreThere(t *testing.T) {
	t.Parallel()
	proxy := &user.DefaultInfo{Name: "system:kube-proxy"}
	for _, c := range []struct {
		name    string
		request authorizer.AttributesRecord
		waits   bool
	}{
		{"a daemon's request waits", authorizer.AttributesRecord{User: proxy, ResourceRequest: true}, true},
		{"an administrator needs no roles", authorizer.AttributesRecord{User: apiserverUser(), ResourceRequest: true}, false},
		{"health and discovery are no resources", authorizer.AttributesRecord{User: proxy, Path: "/readyz"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				complete, answered := make(chan struct{}), make(chan struct{})
				p := patient{authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
					return authorizer.DecisionAllow, "", nil
				}), complete}
				go func() {
					defer close(answered)
					if decision, _, err := p.Authorize(t.Context(), c.request); decision != authorizer.DecisionAllow || err != nil {
						t.Errorf("decision is %v, %v", decision, err)
					}
				}()
				synctest.Wait()
				select {
				case <-answered:
					if c.waits {
						t.Error("answered before the roles are there")
					}
				default:
					if !c.waits {
						t.Error("waits")
					}
				}
				close(complete)
				<-answered
			})
		})
	}
}

func TestAServerWhoseStoreHasNoLeaderAnswersAfterAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := patient{authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return authorizer.DecisionNoOpinion, "", nil
		}), nil}
		begin := time.Now()
		p.ConditionsAwareAuthorize(t.Context(), authorizer.AttributesRecord{User: &user.DefaultInfo{}, ResourceRequest: true})
		if waited := time.Since(begin); waited != firstAnswerLimit {
			t.Errorf("answered after %s, want %s", waited, firstAnswerLimit)
		}
	})
}

// A proxy that starts with the first API server of a new cluster asks before
// any role is there.
func TestTheFirstRequestOfAProxyIsAllowed(t *testing.T) {
	t.Parallel()
	answer := make(chan error, 1)
	serve(t, t.TempDir(), func(c *Config) {
		authority, err := pki.EnsureControl(pki.Control{Dir: c.PKIDir, ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"})
		if err != nil {
			t.Fatal(err)
		}
		kubeconfig := filepath.Join(t.TempDir(), "proxy.conf")
		if err := authority.EnsureKubeconfig(kubeconfig, "test", "https://"+c.Listener.Addr().String(), "system:kube-proxy"); err != nil {
			t.Fatal(err)
		}
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		// The connection waits in the listener until the server takes it.
		go func() {
			_, err := client.DiscoveryV1().EndpointSlices("").List(t.Context(), metav1.ListOptions{})
			answer <- err
		}()
	})
	if err := <-answer; err != nil {
		t.Error(err)
	}
}
