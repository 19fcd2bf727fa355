package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/control/registry"
)

type trustBundle = certificatesv1.ClusterTrustBundle

// maxTrustBundle is how long a bundle may be, in bytes.
const maxTrustBundle = 1 << 20

// trustBundleKind serves ClusterTrustBundles: authorities that pods may trust.
func trustBundleKind() registry.Kind[*trustBundle] {
	return registry.Kind[*trustBundle]{
		Version: certificatesv1.SchemeGroupVersion, Plural: "clustertrustbundles", Singular: "clustertrustbundle", ClusterScoped: true,
		New:                   func() *trustBundle { return &trustBundle{} },
		NewList:               func() runtime.Object { return &certificatesv1.ClusterTrustBundleList{} },
		ConditionalUpdateOnly: true,
		// What a name may be depends on the signer, see validateTrustBundle.
		ValidateName: func(string, bool) []string { return nil },
		Validate: func(_ context.Context, b *trustBundle) field.ErrorList {
			return append(validateTrustBundle(b), validateAnchors(b.Spec.TrustBundle)...)
		},
		ValidateUpdateOnly: true,
		ValidateUpdate: func(_ context.Context, b, old *trustBundle) field.ErrorList {
			errs := validateTrustBundle(b)
			if b.Spec.TrustBundle != old.Spec.TrustBundle {
				errs = append(errs, validateAnchors(b.Spec.TrustBundle)...)
			}
			return append(errs, apivalidation.ValidateImmutableField(b.Spec.SignerName, old.Spec.SignerName, field.NewPath("spec", "signerName"))...)
		},
		Fields: func(b *trustBundle) fields.Set { return fields.Set{"spec.signerName": b.Spec.SignerName} },
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(), registry.Column("SignerName", "string", certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"]),
		},
		Row: func(b *trustBundle) []any {
			if b.Spec.SignerName == "" {
				return []any{b.Name, "<none>"}
			}
			return []any{b.Name, b.Spec.SignerName}
		},
	}
}

func validateTrustBundle(b *trustBundle) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("metadata", "name")
	name := b.Name
	if signer := b.Spec.SignerName; signer == "" {
		if strings.Contains(name, ":") {
			return append(errs, field.Invalid(path, b.Name, `ClusterTrustBundle without signer name must not have ":" in its name`))
		}
	} else {
		prefix := strings.ReplaceAll(signer, "/", ":") + ":"
		rest, has := strings.CutPrefix(name, prefix)
		if !has {
			errs = append(errs, field.Invalid(path, b.Name, fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, prefix)))
			return append(errs, validateSignerName(field.NewPath("spec", "signerName"), signer)...)
		}
		name = rest
		errs = append(errs, validateSignerName(field.NewPath("spec", "signerName"), signer)...)
	}
	for _, message := range apivalidation.NameIsDNSSubdomain(name, false) {
		errs = append(errs, field.Invalid(path, b.Name, message))
	}
	return errs
}

// validateAnchors takes certificates of authorities only, each once.
func validateAnchors(bundle string) field.ErrorList {
	path := field.NewPath("spec", "trustBundle")
	if len(bundle) > maxTrustBundle {
		return field.ErrorList{field.TooLong(path, "" /* not echoed */, maxTrustBundle)}
	}
	var errs field.ErrorList
	bad := func(format string, args ...any) {
		errs = append(errs, field.Invalid(path, "<value omitted>", fmt.Sprintf(format, args...)))
	}
	seen := map[string][]int{}
	rest := []byte(bundle)
	for i := 0; ; i++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		switch {
		case block.Type != "CERTIFICATE":
			bad("entry %d has bad block type: %v", i, block.Type)
		case len(block.Headers) != 0:
			bad("entry %d has PEM block headers", i)
		case err != nil:
			bad("entry %d does not parse as X.509", i)
		case !certificate.IsCA:
			bad("entry %d does not have the CA bit set", i)
		case !certificate.BasicConstraintsValid:
			bad("entry %d has invalid basic constraints", i)
		default:
			seen[string(block.Bytes)] = append(seen[string(block.Bytes)], i)
		}
	}
	if len(errs) > 0 {
		return errs
	}
	if len(seen) == 0 {
		bad("at least one trust anchor must be provided")
	}
	for _, places := range seen {
		if len(places) > 1 {
			bad("duplicate trust anchor (indices %v)", places)
		}
	}
	return errs
}
