package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skiff-run/skiff/control/auth/rbac/bootstrap"
)

// bootstrapRetry is how long a failed bootstrap waits for its next try.
const bootstrapRetry = 500 * time.Millisecond

// bootstrap puts the objects into the API that every cluster has, again until
// all are there. Each is only made when it is missing or wrong, so that several
// API servers may do it at once.
func (s *Server) bootstrap(ctx context.Context) {
	for {
		err := s.ensureAll(ctx)
		if err == nil {
			close(s.complete)
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.config.Logger.Warn("the cluster's first objects are not complete; trying again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(bootstrapRetry):
		}
	}
}

func (s *Server) ensureAll(ctx context.Context) error {
	for _, ensure := range []func(context.Context) error{
		s.ensureNamespaces,
		func(ctx context.Context) error { return bootstrap.Reconcile(ctx, s.client) },
		s.ensurePriorityClasses, s.ensureStorageClass, s.ensureKubernetesService, s.ensureDNSService, s.waitForRoles,
	} {
		if err := ensure(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) ensureNamespaces(ctx context.Context) error {
	for _, name := range []string{metav1.NamespaceSystem, metav1.NamespacePublic, metav1.NamespaceDefault, corev1.NamespaceNodeLease} {
		_, err := s.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = s.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make namespace %s: %w", name, err)
		}
	}
	return nil
}

// ensurePriorityClasses makes the two classes of the system, whose values are Kubernetes'.
func (s *Server) ensurePriorityClasses(ctx context.Context) error {
	for _, class := range []schedulingv1.PriorityClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "system-node-critical"}, Value: 2000001000,
			Description: "Used for system critical pods that must not be moved from their current node."},
		{ObjectMeta: metav1.ObjectMeta{Name: "system-cluster-critical"}, Value: 2000000000,
			Description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."},
	} {
		_, err := s.client.SchedulingV1().PriorityClasses().Get(ctx, class.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = s.client.SchedulingV1().PriorityClasses().Create(ctx, &class, metav1.CreateOptions{})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make priority class %s: %w", class.Name, err)
		}
	}
	return nil
}

// ensureKubernetesService makes the service by which pods reach the API, and
// its endpoints.
func (s *Server) ensureKubernetesService(ctx context.Context) error {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: kubernetesName, Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: s.config.ServiceCIDR.Masked().Addr().Next().String(),
			Ports:     []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt(s.config.AdvertisePort)}},
		},
	}
	if err := s.ensureService(ctx, service); err != nil {
		return err
	}
	if err := s.renewLease(ctx); err != nil {
		return fmt.Errorf("say that this API server serves: %w", err)
	}
	addresses, err := s.servers()
	if err != nil {
		return err
	}
	return s.publishEndpoints(ctx, addresses)
}

// ensureDNSService makes the service that stands for cluster DNS, which every
// node serves at this address by itself: the service is there so that people
// and programs find it where they look.
func (s *Server) ensureDNSService(ctx context.Context) error {
	return s.ensureService(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kube-dns", Labels: map[string]string{
			"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
		}},
		Spec: corev1.ServiceSpec{
			ClusterIP: s.config.DNSAddress().String(),
			Ports: []corev1.ServicePort{
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromInt32(53)},
				{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53, TargetPort: intstr.FromInt32(53)},
			},
		},
	})
}

func (s *Server) ensureService(ctx context.Context, service *corev1.Service) error {
	_, err := s.client.CoreV1().Services(service.Namespace).Get(ctx, service.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = s.client.CoreV1().Services(service.Namespace).Create(ctx, service, metav1.CreateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make service %s/%s: %w", service.Namespace, service.Name, err)
	}
	return nil
}

// installIssuerDiscovery serves what others need to check our service account
// tokens (OpenID Connect discovery).
func (s *Server) installIssuerDiscovery() {
	issuer := s.identities.issuer
	s.generic.Handler.NonGoRestfulMux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}`,
			issuer.URL(), "https://"+s.generic.ExternalAddress+"/openid/v1/jwks")
	})
	s.generic.Handler.NonGoRestfulMux.HandleFunc("/openid/v1/jwks", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		// The client is gone when this fails.
		_, _ = w.Write(issuer.KeySet())
	})
}

// WaitBootstrapped returns once the objects every cluster has are there.
func (s *Server) WaitBootstrapped(ctx context.Context) error {
	select {
	case <-s.complete:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
