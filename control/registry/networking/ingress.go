package networking

import (
	"context"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
)

// ClassAnnotation is how Ingresses named their class before they had a field for it.
const ClassAnnotation = "kubernetes.io/ingress.class"

// ingressKind serves Ingresses.
func ingressKind() registry.Kind[*networkingv1.Ingress] {
	return registry.Kind[*networkingv1.Ingress]{
		Version: networkingv1.SchemeGroupVersion, Plural: "ingresses", Singular: "ingress", ShortNames: []string{"ing"},
		New:                func() *networkingv1.Ingress { return &networkingv1.Ingress{} },
		NewList:            func() runtime.Object { return &networkingv1.IngressList{} },
		Spec:               func(i *networkingv1.Ingress) any { return &i.Spec },
		Status:             func(i *networkingv1.Ingress) any { return &i.Status },
		Generation:         true,
		ValidateName:       apivalidation.NameIsDNSSubdomain,
		ValidateUpdateOnly: true,
		Validate:           func(_ context.Context, i *networkingv1.Ingress) field.ErrorList { return validateNewIngress(i) },
		ValidateUpdate: func(_ context.Context, i, old *networkingv1.Ingress) field.ErrorList {
			return validateIngressUpdate(i, old)
		},
		ValidateStatus: func(_ context.Context, i, old *networkingv1.Ingress) field.ErrorList {
			return validateIngressStatus(&i.Status.LoadBalancer, &old.Status.LoadBalancer, field.NewPath("status", "loadBalancer"))
		},
		Warnings: func(_ context.Context, i, old *networkingv1.Ingress) []string {
			if _, annotated := i.Annotations[ClassAnnotation]; old == nil && annotated && i.Spec.IngressClassName == nil {
				return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", ClassAnnotation)}
			}
			return nil
		},
		StatusWarnings: func(_ context.Context, i, _ *networkingv1.Ingress) []string {
			var warnings []string
			for n, ingress := range i.Status.LoadBalancer.Ingress {
				if ingress.IP != "" {
					warnings = append(warnings, validation.GetWarningsForIP(field.NewPath("status", "loadBalancer", "ingress").Index(n), ingress.IP)...)
				}
			}
			return warnings
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Class", "string", "The name of the IngressClass resource that should be used for additional configuration"),
			registry.Column("Hosts", "string", "Hosts that incoming requests are matched against before the ingress rule"),
			registry.Column("Address", "string", "Address is a list containing ingress points for the load-balancer"),
			registry.Column("Ports", "string", "Ports of TLS configurations that open"),
			registry.AgeColumn(),
		},
		Row: func(i *networkingv1.Ingress) []any {
			ports := "80"
			if len(i.Spec.TLS) > 0 {
				ports = "80, 443"
			}
			return []any{i.Name, ptr.Deref(i.Spec.IngressClassName, "<none>"), describeHosts(i.Spec.Rules), describeAddresses(i.Status.LoadBalancer), ports, registry.Age(i.CreationTimestamp)}
		},
	}
}

// shownHosts is how many hosts fit into the column.
const shownHosts = 3

func describeHosts(rules []networkingv1.IngressRule) string {
	var hosts []string
	more := false
	for _, rule := range rules {
		if len(hosts) == shownHosts {
			more = true
		}
		if !more && rule.Host != "" {
			hosts = append(hosts, rule.Host)
		}
	}
	switch {
	case len(hosts) == 0:
		return "*"
	case more:
		return fmt.Sprintf("%s + %d more...", strings.Join(hosts, ","), len(rules)-shownHosts)
	}
	return strings.Join(hosts, ",")
}

// addressWidth is how wide the column of addresses is.
const addressWidth = 16

func describeAddresses(status networkingv1.IngressLoadBalancerStatus) string {
	var all []string
	for _, ingress := range status.Ingress {
		switch {
		case ingress.IP != "":
			all = append(all, ingress.IP)
		case ingress.Hostname != "":
			all = append(all, ingress.Hostname)
		}
	}
	slices.Sort(all)
	text := strings.Join(slices.Compact(all), ",")
	if len(text) > addressWidth {
		text = text[:addressWidth-3] + "..."
	}
	return text
}
