package join

import (
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/pki"
)

// Emergency is an administrator whom an API server believes without reading
// roles, which takes a store that answers: a member of system:masters, signed
// with the authority's key on this machine and kept nowhere.
func (a *Administrator) Emergency(l up.Layout) (*Administrator, error) {
	authority, err := pki.LoadAuthority(l.PKI(), "ca")
	if err != nil {
		return nil, fmt.Errorf("this machine cannot sign an emergency certificate: %w", err)
	}
	pair, err := authority.Sign(pki.Request{CommonName: "kubernetes-super-admin", Organizations: []string{"system:masters"}, Client: true})
	if err != nil {
		return nil, fmt.Errorf("sign an emergency certificate: %w", err)
	}
	config := rest.CopyConfig(a.Config)
	config.TLSClientConfig.CertFile, config.TLSClientConfig.KeyFile = "", ""
	config.TLSClientConfig.CertData, config.TLSClientConfig.KeyData = pair.Certificate, pair.Key
	return newAdministrator(config)
}
