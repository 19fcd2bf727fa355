package operations

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
)

// sharedFiles are what every control machine has the same of.
var sharedFiles = []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub", "store-ca.crt", "store-ca.key"}

// resource is what an error is about.
func resource(name string) schema.GroupResource { return schema.GroupResource{Resource: name} }

// terms tells the holder of a token what it is good for.
func (o *Operations) terms(r *http.Request) (any, error) {
	role := operator.Worker
	switch {
	case hasGroup(r, operator.ControlGroup):
		role = operator.Control
	case hasGroup(r, operator.WorkerGroup):
	default:
		return nil, apierrors.NewForbidden(resource("join"), "", errors.New("only holders of a join token may join: make one with \"skiff token create\""))
	}
	return operator.Terms{
		Role: role, Version: o.Version, Settings: o.Settings, Time: time.Now().UTC(), ControlAddresses: o.controlAddresses(r.Context()),
	}, nil
}

// introduction reads and checks what a joining machine says of itself.
func (o *Operations) introduction(r *http.Request, group string) (request operator.JoinRequest, address netip.Addr, err error) {
	// Requests of this very process have no connection; nobody joins that way.
	if r.TLS == nil || !hasGroup(r, group) {
		return request, address, apierrors.NewForbidden(resource("join"), "", fmt.Errorf("this takes a join token of group %s", group))
	}
	if err := decode(r, &request); err != nil {
		return request, address, err
	}
	for _, message := range validation.IsDNS1123Subdomain(request.NodeName) {
		return request, address, apierrors.NewBadRequest(fmt.Sprintf("nodeName %q: %s", request.NodeName, message))
	}
	if address, err = netip.ParseAddr(request.Address); err != nil || address.IsLoopback() || address.IsUnspecified() {
		return request, address, apierrors.NewBadRequest(fmt.Sprintf("address %q: must be an IP address that the other machines reach", request.Address))
	}
	return request, address, o.checkName(r.Context(), request.NodeName, address)
}

// checkName refuses the name of a node that is alive elsewhere: machines
// cloned from one image have the same name.
func (o *Operations) checkName(ctx context.Context, name string, address netip.Addr) error {
	node, err := o.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for node %s: %w", name, err)
	}
	ready, own := false, false
	for _, condition := range node.Status.Conditions {
		ready = ready || condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
	}
	for _, each := range node.Status.Addresses {
		own = own || each.Address == address.String()
	}
	if ready && !own {
		return apierrors.NewConflict(resource("nodes"), name,
			errors.New("another machine is Ready under this name: give --node-name, or remove that node first"))
	}
	return nil
}

// joinControl hands the authorities to a new control machine.
func (o *Operations) joinControl(r *http.Request) (any, error) {
	request, address, err := o.introduction(r, operator.ControlGroup)
	if err != nil {
		return nil, err
	}
	grant := operator.ControlGrant{Files: map[string][]byte{}}
	for _, name := range sharedFiles {
		if grant.Files[name], err = os.ReadFile(filepath.Join(o.PKIDir, name)); err != nil {
			return nil, fmt.Errorf("read what a control machine needs: %w", err)
		}
	}
	if o.EncryptionConfig != "" {
		if grant.Encryption, err = os.ReadFile(o.EncryptionConfig); err != nil {
			return nil, fmt.Errorf("read how objects are encrypted: %w", err)
		}
	}
	o.Logger.Info("authorities handed to a joining control machine",
		"node", request.NodeName, "address", address, "member", request.MemberID, "token", requester(r), "remote", r.RemoteAddr)
	return grant, nil
}

// joinWorker signs the certificates of a new worker.
func (o *Operations) joinWorker(r *http.Request) (any, error) {
	request, address, err := o.introduction(r, operator.WorkerGroup)
	if err != nil {
		return nil, err
	}
	authority, err := pki.LoadAuthority(o.PKIDir, "ca")
	if err != nil {
		return nil, err
	}
	grant := operator.WorkerGrant{CA: authority.PEM}
	user := "system:node:" + request.NodeName
	for _, each := range []struct {
		field   string
		request []byte
		into    *[]byte
		names   pki.Request
	}{
		{"agent", request.Agent, &grant.Agent, pki.Request{CommonName: user, Organizations: []string{"system:nodes"}, Client: true}},
		{"agentServer", request.AgentServer, &grant.AgentServer, pki.AgentRequest(request.NodeName, []net.IP{address.AsSlice()})},
		{"proxy", request.Proxy, &grant.Proxy, pki.Request{CommonName: "system:kube-proxy", Client: true}},
	} {
		var key crypto.PublicKey
		if key, err = pki.PublicKeyOf(each.request); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("%s: %v", each.field, err))
		}
		if *each.into, err = authority.SignKey(key, each.names); err != nil {
			return nil, fmt.Errorf("sign certificate of %s's %s: %w", request.NodeName, each.field, err)
		}
	}
	o.Logger.Info("certificates signed for a joining worker",
		"node", request.NodeName, "address", address, "token", requester(r), "remote", r.RemoteAddr)
	return grant, nil
}
