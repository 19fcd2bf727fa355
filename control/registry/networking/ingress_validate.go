package networking

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

var (
	pathSequences = []string{"//", "/./", "/../", "%2f", "%2F"}
	pathSuffixes  = []string{"/..", "/."}
)

// ingressValidation is what an update may keep although it would be refused today.
type ingressValidation struct {
	anySecretName, anyWildcardRule bool
}

func validateNewIngress(i *networkingv1.Ingress) field.ErrorList {
	errs := (&ingressValidation{}).spec(&i.Spec, field.NewPath("spec"))
	annotation, annotated := i.Annotations[ClassAnnotation]
	if annotated && i.Spec.IngressClassName != nil && annotation != *i.Spec.IngressClassName {
		errs = append(errs, field.Invalid(field.NewPath("annotations").Child(ClassAnnotation), annotation, "must match `ingressClassName` when both are specified"))
	}
	return errs
}

func validateIngressUpdate(i, old *networkingv1.Ingress) field.ErrorList {
	var v ingressValidation
	for _, tls := range old.Spec.TLS {
		v.anySecretName = v.anySecretName || len(secretNameProblems(tls.SecretName)) > 0
	}
	for j := range old.Spec.Rules {
		rule := &old.Spec.Rules[j]
		v.anyWildcardRule = v.anyWildcardRule || strings.Contains(rule.Host, "*") && len(validateRuleValue(rule, nil)) > 0
	}
	return v.spec(&i.Spec, field.NewPath("spec"))
}

func secretNameProblems(name string) []string {
	if name == "" {
		return nil
	}
	return apivalidation.NameIsDNSSubdomain(name, false)
}

func (v *ingressValidation) spec(spec *networkingv1.IngressSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		errs = append(errs, field.Invalid(path, spec.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if spec.DefaultBackend != nil {
		errs = append(errs, validateBackend(spec.DefaultBackend, path.Child("defaultBackend"))...)
	}
	for i := range spec.Rules {
		errs = append(errs, v.rule(&spec.Rules[i], path.Child("rules").Index(i))...)
	}
	for i, tls := range spec.TLS {
		// The index is of tls itself, as upstream shows it.
		at := path.Child("tls").Index(i)
		for j, host := range tls.Hosts {
			errs = append(errs, invalid(at.Child("hosts").Index(j), host, hostProblems(host))...)
		}
		if !v.anySecretName {
			errs = append(errs, invalid(at.Child("secretName"), tls.SecretName, secretNameProblems(tls.SecretName))...)
		}
	}
	if spec.IngressClassName != nil {
		errs = append(errs, invalid(path.Child("ingressClassName"), *spec.IngressClassName, apivalidation.NameIsDNSSubdomain(*spec.IngressClassName, false))...)
	}
	return errs
}

func hostProblems(host string) []string {
	if strings.Contains(host, "*") {
		return validation.IsWildcardDNS1123Subdomain(host)
	}
	return validation.IsDNS1123Subdomain(host)
}

func (v *ingressValidation) rule(rule *networkingv1.IngressRule, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if rule.Host != "" {
		if netutils.ParseIPSloppy(rule.Host) != nil {
			errs = append(errs, field.Invalid(path.Child("host"), rule.Host, "must be a DNS name, not an IP address"))
		}
		errs = append(errs, invalid(path.Child("host"), rule.Host, hostProblems(rule.Host))...)
	}
	if v.anyWildcardRule && strings.Contains(rule.Host, "*") {
		return errs
	}
	return append(errs, validateRuleValue(rule, path)...)
}

func validateRuleValue(rule *networkingv1.IngressRule, path *field.Path) field.ErrorList {
	if rule.HTTP == nil {
		return nil
	}
	var errs field.ErrorList
	at := path.Child("http", "paths")
	if len(rule.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	for i := range rule.HTTP.Paths {
		errs = append(errs, validatePath(&rule.HTTP.Paths[i], at.Index(i))...)
	}
	return errs
}

func validatePath(p *networkingv1.HTTPIngressPath, path *field.Path) field.ErrorList {
	if p.PathType == nil {
		return field.ErrorList{field.Required(path.Child("pathType"), "pathType must be specified")}
	}
	var errs field.ErrorList
	refuse := func(detail string) { errs = append(errs, field.Invalid(path.Child("path"), p.Path, detail)) }
	absolute := strings.HasPrefix(p.Path, "/")
	switch *p.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !absolute {
			refuse("must be an absolute path")
		}
		for _, sequence := range pathSequences {
			if strings.Contains(p.Path, sequence) {
				refuse(fmt.Sprintf("must not contain '%s'", sequence))
			}
		}
		for _, suffix := range pathSuffixes {
			if strings.HasSuffix(p.Path, suffix) {
				refuse(fmt.Sprintf("cannot end with '%s'", suffix))
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if p.Path != "" && !absolute {
			refuse("must be an absolute path")
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("pathType"), *p.PathType, []string{
			string(networkingv1.PathTypeExact), string(networkingv1.PathTypeImplementationSpecific), string(networkingv1.PathTypePrefix),
		}))
	}
	return append(errs, validateBackend(&p.Backend, path.Child("backend"))...)
}

func validateBackend(backend *networkingv1.IngressBackend, path *field.Path) field.ErrorList {
	service := backend.Service
	switch {
	case backend.Resource != nil && service != nil:
		return field.ErrorList{field.Invalid(path, "", "cannot set both resource and service backends")}
	case backend.Resource != nil:
		return validateReference(backend.Resource, path.Child("resource"))
	case service == nil:
		return field.ErrorList{field.Invalid(path, "", "resource or service backend is required")}
	}
	var errs field.ErrorList
	if service.Name == "" {
		errs = append(errs, field.Required(path.Child("service", "name"), ""))
	} else {
		errs = append(errs, invalid(path.Child("service", "name"), service.Name, apivalidation.NameIsDNSLabel(service.Name, false))...)
	}
	port := path.Child("service", "port")
	switch named, numbered := service.Port.Name != "", service.Port.Number != 0; {
	case named && numbered:
		errs = append(errs, field.Invalid(path, "", "cannot set both port name & port number"))
	case named:
		errs = append(errs, invalid(port.Child("name"), service.Port.Name, validation.IsValidPortName(service.Port.Name))...)
	case numbered:
		errs = append(errs, invalid(port.Child("number"), service.Port.Number, validation.IsValidPortNum(int(service.Port.Number)))...)
	default:
		errs = append(errs, field.Required(path, "port name or number is required"))
	}
	return errs
}

func validateReference(reference *corev1.TypedLocalObjectReference, path *field.Path) field.ErrorList {
	return validateTyped(reference.APIGroup, reference.Kind, reference.Name, path)
}

// validateTyped checks what references to objects of any kind have in common.
func validateTyped(group *string, kind, name string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if group != nil {
		errs = append(errs, invalid(path.Child("apiGroup"), *group, validation.IsDNS1123Subdomain(*group))...)
	}
	for _, each := range []struct{ name, value string }{{"kind", kind}, {"name", name}} {
		if each.value == "" {
			errs = append(errs, field.Required(path.Child(each.name), ""))
			continue
		}
		errs = append(errs, invalid(path.Child(each.name), each.value, content.IsPathSegmentName(each.value))...)
	}
	return errs
}

func validateIngressStatus(status, old *networkingv1.IngressLoadBalancerStatus, path *field.Path) field.ErrorList {
	var before []string
	for _, ingress := range old.Ingress {
		if ingress.IP != "" {
			before = append(before, ingress.IP)
		}
	}
	var errs field.ErrorList
	for i, ingress := range status.Ingress {
		at := path.Child("ingress").Index(i)
		if ingress.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), ingress.IP, true, before)...)
		}
		if ingress.Hostname != "" {
			errs = append(errs, invalid(at.Child("hostname"), ingress.Hostname, validation.IsDNS1123Subdomain(ingress.Hostname))...)
			if netutils.ParseIPSloppy(ingress.Hostname) != nil {
				errs = append(errs, field.Invalid(at.Child("hostname"), ingress.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}
