package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxProfilePath is PATH_MAX without its final zero.
const maxProfilePath = 4095

func (v *validator) seccompProfile(p *corev1.SeccompProfile, path *field.Path) {
	if p == nil {
		return
	}
	if p.Type == "" {
		v.required(path.Child("type"), "type is required when seccompProfile is set")
	} else {
		oneOf(&v.findings, path.Child("type"), p.Type, corev1.SeccompProfileTypeLocalhost,
			corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	at := path.Child("localhostProfile")
	switch local := p.Type == corev1.SeccompProfileTypeLocalhost; {
	case local && p.LocalhostProfile == nil:
		v.required(at, "must be set when seccomp type is Localhost")
	case local:
		v.relativePath(*p.LocalhostProfile, at)
	case p.LocalhostProfile != nil:
		v.invalid(at, p, "can only be set when seccomp type is Localhost")
	}
}

func (v *validator) appArmorProfile(p *corev1.AppArmorProfile, path *field.Path) {
	if p == nil {
		return
	}
	at := path.Child("localhostProfile")
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		v.appArmorLocalProfile(p.LocalhostProfile, at)
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			v.invalid(at, p.LocalhostProfile, "can only be set when AppArmor type is Localhost")
		}
	case "":
		v.required(path.Child("type"), "type is required when appArmorProfile is set")
	default:
		oneOf(&v.findings, path.Child("type"), p.Type, corev1.AppArmorProfileTypeLocalhost,
			corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
}

func (v *validator) appArmorLocalProfile(profile *string, path *field.Path) {
	if profile == nil {
		v.required(path, "must be set when AppArmor type is Localhost")
		return
	}
	if strings.TrimSpace(*profile) != *profile {
		v.invalid(path, *profile, "must not be padded with whitespace")
	} else if *profile == "" {
		v.required(path, "must be set when AppArmor type is Localhost")
	}
	if len(*profile) > maxProfilePath {
		v.tooLong(path, maxProfilePath)
	}
}

// seccompAnnotations checks profiles as they were written before they were fields.
func (v *validator) seccompAnnotations(annotations map[string]string, path *field.Path) {
	for _, key := range sortedKeys(annotations) {
		if key != corev1.SeccompPodAnnotationKey && !strings.HasPrefix(key, corev1.SeccompContainerAnnotationKeyPrefix) {
			continue
		}
		at := path.Child(key)
		switch profile := annotations[key]; {
		case profile == corev1.SeccompProfileRuntimeDefault, profile == corev1.DeprecatedSeccompProfileDockerDefault,
			profile == corev1.SeccompProfileNameUnconfined:
		case strings.HasPrefix(profile, corev1.SeccompLocalhostProfileNamePrefix):
			v.relativePath(strings.TrimPrefix(profile, corev1.SeccompLocalhostProfileNamePrefix), at)
		default:
			v.invalid(at, profile, "must be a valid seccomp profile")
		}
	}
}

func (v *validator) appArmorAnnotations(annotations map[string]string, path *field.Path) {
	for _, key := range sortedKeys(annotations) {
		name, ours := strings.CutPrefix(key, appArmorPrefix)
		if !ours {
			continue
		}
		found := false
		containers(v.spec, nil, func(c *corev1.Container, _ *field.Path) { found = found || c.Name == name })
		if !found {
			v.invalid(path.Key(key), name, "container not found")
		}
		profile := annotations[key]
		known := profile == "" || profile == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault ||
			profile == corev1.DeprecatedAppArmorBetaProfileNameUnconfined ||
			strings.HasPrefix(profile, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		if !known {
			v.invalid(path.Key(key), profile, fmt.Sprintf("invalid AppArmor profile name: %q", profile))
		}
	}
}

// written is a profile in its two forms: the word an annotation holds for each type.
type written struct {
	unconfined, localPrefix string
	runtimeDefault          []string
}

var (
	seccompWords = written{
		unconfined:     corev1.SeccompProfileNameUnconfined,
		localPrefix:    corev1.SeccompLocalhostProfileNamePrefix,
		runtimeDefault: []string{corev1.SeccompProfileRuntimeDefault, corev1.DeprecatedSeccompProfileDockerDefault},
	}
	appArmorWords = written{
		unconfined:     corev1.DeprecatedAppArmorBetaProfileNameUnconfined,
		localPrefix:    corev1.DeprecatedAppArmorBetaProfileNamePrefix,
		runtimeDefault: []string{corev1.DeprecatedAppArmorBetaProfileRuntimeDefault},
	}
)

// match compares the annotation with the field. The types of seccomp and AppArmor profiles have
// the same names.
func (w written) match(f *findings, annotation, kind string, local *string, what string, path *field.Path) {
	mismatch := false
	switch kind {
	case "Unconfined":
		mismatch = annotation != w.unconfined
	case "RuntimeDefault":
		mismatch = true
		for _, word := range w.runtimeDefault {
			mismatch = mismatch && annotation != word
		}
	case "Localhost":
		profile, isLocal := strings.CutPrefix(annotation, w.localPrefix)
		mismatch = !isLocal
		if isLocal && (local == nil || profile != *local) {
			f.forbidden(path.Child("localhostProfile"), what+" profile in annotation and field must match")
		}
	}
	if mismatch {
		f.forbidden(path.Child("type"), what+" type in annotation and field must match")
	}
}

func (v *validator) seccompAnnotationsMatch(annotations map[string]string, path *field.Path) {
	check := func(key string, p *corev1.SeccompProfile, at *field.Path) {
		if annotation, found := annotations[key]; found && p != nil {
			seccompWords.match(&v.findings, annotation, string(p.Type), p.LocalhostProfile, "seccomp", at)
		}
	}
	if sc := v.spec.SecurityContext; sc != nil {
		check(corev1.SeccompPodAnnotationKey, sc.SeccompProfile, path.Child("securityContext", "seccompProfile"))
	}
	containers(v.spec, path, func(c *corev1.Container, at *field.Path) {
		if c.SecurityContext != nil {
			check(corev1.SeccompContainerAnnotationKeyPrefix+c.Name, c.SecurityContext.SeccompProfile,
				at.Child("securityContext", "seccompProfile"))
		}
	})
}

func (v *validator) appArmorAnnotationsMatch(annotations map[string]string, path *field.Path) {
	if v.spec.OS != nil && v.spec.OS.Name == corev1.Windows {
		return
	}
	var inherited *corev1.AppArmorProfile
	if v.spec.SecurityContext != nil {
		inherited = v.spec.SecurityContext.AppArmorProfile
	}
	containers(v.spec, path, func(c *corev1.Container, at *field.Path) {
		p := inherited
		if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			p = c.SecurityContext.AppArmorProfile
		}
		if annotation, found := annotations[appArmorPrefix+c.Name]; found && p != nil {
			appArmorWords.match(&v.findings, annotation, string(p.Type), p.LocalhostProfile, "apparmor",
				at.Child("securityContext", "appArmorProfile"))
		}
	})
}
