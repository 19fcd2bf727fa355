package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func anchor(t *testing.T, isCA bool) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: isCA, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestTrustBundles(t *testing.T) {
	t.Parallel()
	a, leaf := anchor(t, true), anchor(t, false)
	for what, tc := range map[string]struct {
		name, signer, bundle string
		want                 []string
	}{
		"one of nobody":              {name: "mine", bundle: a},
		"one of a signer":            {name: "example.com:ca:mine", signer: "example.com/ca", bundle: a},
		"one named like a signer's":  {name: "a:b", bundle: a, want: []string{`metadata.name: Invalid value: "a:b": ClusterTrustBundle without signer name must not have ":" in its name`}},
		"a signer's with no name so": {name: "mine", signer: "example.com/ca", bundle: a, want: []string{`metadata.name: Invalid value: "mine": ClusterTrustBundle for signerName example.com/ca must be named with prefix example.com:ca:`}},
		"an empty one":               {name: "mine", want: []string{`spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided`}},
		"one twice":                  {name: "mine", bundle: a + a, want: []string{`spec.trustBundle: Invalid value: "<value omitted>": duplicate trust anchor (indices [0 1])`}},
		"one that signs nothing":     {name: "mine", bundle: a + leaf, want: []string{`spec.trustBundle: Invalid value: "<value omitted>": entry 1 does not have the CA bit set`}},
	} {
		b := &trustBundle{}
		b.Name, b.Spec.SignerName, b.Spec.TrustBundle = tc.name, tc.signer, tc.bundle
		if diff := cmp.Diff(tc.want, messages(trustBundleKind().Validate(t.Context(), b))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}
