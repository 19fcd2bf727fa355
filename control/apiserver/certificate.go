package apiserver

import (
	"crypto/tls"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authentication/authenticator"
)

// certificateTTL is how long what a connection's client certificate was found
// to be is remembered: verifying a chain costs more than most requests, and a
// connection carries many. A CA that is replaced counts this much later.
const certificateTTL = 10 * time.Second

// certificateAuthenticator asks another authenticator, which looks at nothing
// but the client certificate, once in certificateTTL for each connection.
type certificateAuthenticator struct {
	verify authenticator.Request
	// known is keyed by the connection's state, which all requests of a
	// connection share, and so holds it: no other can get the same address.
	known *cache.Expiring
}

// certificateAnswer is what verify said.
type certificateAnswer struct {
	response *authenticator.Response
	ok       bool
	err      error
}

func newCertificateAuthenticator(verify authenticator.Request) *certificateAuthenticator {
	return &certificateAuthenticator{verify: verify, known: cache.NewExpiring()}
}

// AuthenticateRequest implements authenticator.Request.
func (c *certificateAuthenticator) AuthenticateRequest(request *http.Request) (*authenticator.Response, bool, error) {
	if request.TLS == nil || len(request.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	var connection *tls.ConnectionState = request.TLS
	if found, ok := c.known.Get(connection); ok {
		answer := found.(certificateAnswer)
		return answer.response, answer.ok, answer.err
	}
	var answer certificateAnswer
	answer.response, answer.ok, answer.err = c.verify.AuthenticateRequest(request)
	// Not beyond the certificate's own end.
	if left := min(certificateTTL, time.Until(request.TLS.PeerCertificates[0].NotAfter)); left > 0 {
		c.known.Set(connection, answer, left)
	}
	return answer.response, answer.ok, answer.err
}

// headerAuthenticator asks the authenticator of requests that another server
// makes for its users only about requests that name a user: it would verify the
// certificate of every other request in vain.
type headerAuthenticator struct {
	verify authenticator.Request
	names  func() []string
}

// AuthenticateRequest implements authenticator.Request.
func (h headerAuthenticator) AuthenticateRequest(request *http.Request) (*authenticator.Response, bool, error) {
	for _, name := range h.names() {
		if request.Header.Get(name) != "" {
			return h.verify.AuthenticateRequest(request)
		}
	}
	return nil, false, nil
}
