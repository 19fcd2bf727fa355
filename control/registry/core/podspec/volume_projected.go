package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds of the lifetimes of projected credentials, in seconds.
const (
	minTokenLifetime           = 10 * 60
	maxTokenLifetime           = 1 << 32
	minCertificateLifetime     = 3600
	maxCertificateLifetime     = 91 * 24 * 3600
	maxKubeCertificateLifetime = 24 * 3600
)

// projectedPaths are the files the sources of one volume have taken.
type projectedPaths struct {
	taken sets.Set[string]
	path  *field.Path
}

func (v *validator) projected(s *corev1.ProjectedVolumeSource, path *field.Path) {
	v.fileMode(s.DefaultMode, path.Child("defaultMode"))
	files := projectedPaths{taken: sets.New[string](), path: path}
	for i := range s.Sources {
		v.projection(&s.Sources[i], files, path.Child("sources").Index(i))
	}
}

func (v *validator) projection(source *corev1.VolumeProjection, files projectedPaths, path *field.Path) {
	kinds := 0
	if s := source.Secret; s != nil {
		kinds++
		v.projectedKeys(s.Name, s.Items, files, path.Child("secret"))
	}
	if s := source.ConfigMap; s != nil {
		kinds++
		v.projectedKeys(s.Name, s.Items, files, path.Child("configMap"))
	}
	if s := source.DownwardAPI; s != nil {
		kinds++
		for i := range s.Items {
			v.downwardFile(&s.Items[i], path.Child("downwardAPI"))
			if s.Items[i].Path != "" {
				v.take(files, s.Items[i].Path, s.Items[i].Path)
			}
		}
	}
	if s := source.ServiceAccountToken; s != nil {
		kinds++
		v.projectedToken(s, files.path, path.Child("serviceAccountToken"))
	}
	if s := source.ClusterTrustBundle; s != nil {
		kinds++
		v.projectedTrustBundle(s, files, path.Child("clusterTrustBundle"))
	}
	if s := source.PodCertificate; s != nil {
		kinds++
		v.projectedCertificate(s, files, path.Child("podCertificate"))
	}
	if kinds > 1 {
		v.forbidden(path, "may not specify more than 1 volume type per source")
	}
}

// take records a file of the volume; blame is the value shown when another source has it already.
func (v *validator) take(files projectedPaths, file, blame string) {
	if files.taken.Has(file) {
		v.invalid(files.path, blame, "conflicting duplicate paths")
	}
	files.taken.Insert(file)
}

func (v *validator) projectedKeys(name string, items []corev1.KeyToPath, files projectedPaths, path *field.Path) {
	v.needs(path, "name", name)
	for i := range items {
		v.keyFile(&items[i], path.Child("items").Index(i))
		if items[i].Path != "" {
			v.take(files, items[i].Path, name)
		}
	}
}

// projectedToken reports a bad file path on the volume, as upstream does.
func (v *validator) projectedToken(s *corev1.ServiceAccountTokenProjection, volume, path *field.Path) {
	switch expiration := s.ExpirationSeconds; {
	case expiration == nil:
		v.required(path.Child("expirationSeconds"), "")
	case *expiration < minTokenLifetime:
		v.invalid(path.Child("expirationSeconds"), *expiration, "may not specify a duration less than 10 minutes")
	case *expiration > maxTokenLifetime:
		v.invalid(path.Child("expirationSeconds"), *expiration, "may not specify a duration larger than 2^32 seconds")
	}
	if s.Path == "" {
		v.required(volume.Child("path"), "")
	} else {
		v.volumeFilePath(s.Path, volume.Child("path"))
	}
}

func (v *validator) projectedTrustBundle(s *corev1.ClusterTrustBundleProjection, files projectedPaths, path *field.Path) {
	switch {
	case s.Name != nil && s.SignerName != nil:
		v.invalid(path, s, "only one of name and signerName may be used")
	case s.Name != nil:
		if *s.Name == "" {
			v.required(path.Child("name"), "must be a valid object name")
		}
		for _, message := range trustBundleName(*s.Name) {
			v.invalid(path.Child("name"), *s.Name, "not a valid clustertrustbundlename: "+message)
		}
		if s.LabelSelector != nil {
			v.invalid(path.Child("labelSelector"), s.LabelSelector, "labelSelector must be unset if name is specified")
		}
	case s.SignerName != nil:
		if *s.SignerName == "" {
			v.required(path.Child("signerName"), "must be a valid signer name")
		}
		v.signerName(*s.SignerName, path.Child("signerName"))
		v.add(metavalidation.ValidateLabelSelector(s.LabelSelector, metavalidation.LabelSelectorValidationOptions{}, path.Child("labelSelector"))...)
	default:
		v.required(path, "either name or signerName must be specified")
	}
	v.needs(path, "path", s.Path)
	v.volumeFilePath(s.Path, path.Child("path"))
	v.take(files, s.Path, s.Path)
}

// trustBundleName checks the name of a trust bundle: that of a signer's bundle carries the
// signer's name with colons for slashes before its last colon.
func trustBundleName(name string) []string {
	if colon := strings.LastIndex(name, ":"); colon > 0 {
		name = name[colon+1:]
	} else if colon == 0 {
		return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
	}
	return apivalidation.NameIsDNSSubdomain(name, false)
}

func (v *validator) projectedCertificate(s *corev1.PodCertificateProjection, files projectedPaths, path *field.Path) {
	v.signerName(s.SignerName, path.Child("signerName"))
	if s.UserAnnotations != nil {
		at := path.Child("userAnnotations")
		for _, key := range sortedKeys(s.UserAnnotations) {
			v.add(validation.IsDomainPrefixedKey(at, strings.ToLower(key))...)
		}
		if apivalidation.ValidateAnnotationsSize(s.UserAnnotations) != nil {
			v.tooLong(at, apivalidation.TotalAnnotationSizeLimitB)
		}
	}
	oneOf(&v.findings, path.Child("keyType"), s.KeyType, "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
	v.certificateLifetime(s, path.Child("maxExpirationSeconds"))

	written := 0
	for _, file := range []struct{ name, path string }{
		{"credentialBundlePath", s.CredentialBundlePath},
		{"keyPath", s.KeyPath},
		{"certificateChainPath", s.CertificateChainPath},
	} {
		if file.path == "" {
			continue
		}
		written++
		v.volumeFilePath(file.path, path.Child(file.name))
		v.take(files, file.path, file.path)
	}
	if written == 0 {
		v.required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")
	}
}

func (v *validator) certificateLifetime(s *corev1.PodCertificateProjection, path *field.Path) {
	if s.MaxExpirationSeconds == nil {
		return
	}
	if *s.MaxExpirationSeconds < minCertificateLifetime {
		v.invalid(path, *s.MaxExpirationSeconds, "if provided, maxExpirationSeconds must be >= 3600")
	}
	limit := maxCertificateLifetime
	if domain, _, _ := strings.Cut(s.SignerName, "/"); domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") {
		limit = maxKubeCertificateLifetime
	}
	if int(*s.MaxExpirationSeconds) > limit {
		v.invalid(path, *s.MaxExpirationSeconds, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", limit))
	}
}

// signerName checks the form domain/path, long enough for a domain, a namespace and a name.
func (f *findings) signerName(name string, path *field.Path) {
	if name == "" {
		f.required(path, "")
		return
	}
	domain, resource, found := strings.Cut(name, "/")
	if !found || strings.Contains(resource, "/") {
		f.invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
		return
	}
	const maxDomain = validation.DNS1123SubdomainMaxLength
	const maxName = maxDomain + 1 + validation.DNS1123LabelMaxLength + 1 + validation.DNS1123SubdomainMaxLength
	if len(domain) > maxDomain {
		f.tooLong(path, maxDomain)
	}
	f.dotted(domain, validation.IsDNS1123Label, path)
	if !strings.Contains(domain, ".") {
		f.invalid(path, domain, "should be a domain with at least two segments separated by dots")
	}
	f.dotted(resource, validation.IsDNS1123Subdomain, path)
	if len(name) > maxName {
		f.tooLong(path, maxName)
	}
}

// dotted reports the first part of a dotted name that is not of the right form.
func (f *findings) dotted(name string, form func(string) []string, path *field.Path) {
	for _, part := range strings.Split(name, ".") {
		if messages := form(part); len(messages) > 0 {
			for _, message := range messages {
				f.invalid(path, name, fmt.Sprintf("validating label %q: %s", part, message))
			}
			return
		}
	}
}
