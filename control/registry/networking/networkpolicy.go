package networking

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
)

// networkPolicyKind serves NetworkPolicies.
func networkPolicyKind() registry.Kind[*networkingv1.NetworkPolicy] {
	return registry.Kind[*networkingv1.NetworkPolicy]{
		Version: networkingv1.SchemeGroupVersion, Plural: "networkpolicies", Singular: "networkpolicy", ShortNames: []string{"netpol"},
		New:          func() *networkingv1.NetworkPolicy { return &networkingv1.NetworkPolicy{} },
		NewList:      func() runtime.Object { return &networkingv1.NetworkPolicyList{} },
		Default:      setNetworkPolicyDefaults,
		Spec:         func(p *networkingv1.NetworkPolicy) any { return &p.Spec },
		Generation:   true,
		ValidateName: apivalidation.NameIsDNSSubdomain,
		// An update may keep what an earlier release accepted.
		ValidateUpdateOnly: true,
		Validate: func(_ context.Context, p *networkingv1.NetworkPolicy) field.ErrorList {
			return validateNetworkPolicy(p, nil)
		},
		ValidateUpdate: func(_ context.Context, p, old *networkingv1.NetworkPolicy) field.ErrorList {
			return validateNetworkPolicy(p, old)
		},
		Warnings: func(_ context.Context, p, _ *networkingv1.NetworkPolicy) []string { return networkPolicyWarnings(p) },
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Pod-Selector", "string", networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"]),
			registry.AgeColumn(),
		},
		Row: func(p *networkingv1.NetworkPolicy) []any {
			return []any{p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), registry.Age(p.CreationTimestamp)}
		},
	}
}

func setNetworkPolicyDefaults(p *networkingv1.NetworkPolicy) {
	ports := func(list []networkingv1.NetworkPolicyPort) {
		for i := range list {
			if list[i].Protocol == nil {
				list[i].Protocol = ptr.To(corev1.ProtocolTCP)
			}
		}
	}
	for i := range p.Spec.Ingress {
		ports(p.Spec.Ingress[i].Ports)
	}
	for i := range p.Spec.Egress {
		ports(p.Spec.Egress[i].Ports)
	}
	if len(p.Spec.PolicyTypes) == 0 {
		// Without types a policy is about ingress, and about egress when it has rules for it.
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
}

// eachBlock visits the IP blocks of a policy with their paths.
func eachBlock(p *networkingv1.NetworkPolicy, visit func(*networkingv1.IPBlock, *field.Path)) {
	spec := field.NewPath("spec")
	for i := range p.Spec.Ingress {
		for j := range p.Spec.Ingress[i].From {
			if block := p.Spec.Ingress[i].From[j].IPBlock; block != nil {
				visit(block, spec.Child("ingress").Index(i).Child("from").Index(j).Child("ipBlock"))
			}
		}
	}
	for i := range p.Spec.Egress {
		for j := range p.Spec.Egress[i].To {
			if block := p.Spec.Egress[i].To[j].IPBlock; block != nil {
				visit(block, spec.Child("egress").Index(i).Child("to").Index(j).Child("ipBlock"))
			}
		}
	}
}

func networkPolicyWarnings(p *networkingv1.NetworkPolicy) []string {
	var warnings []string
	eachBlock(p, func(block *networkingv1.IPBlock, path *field.Path) {
		warnings = append(warnings, validation.GetWarningsForCIDR(path.Child("cidr"), block.CIDR)...)
		for i, except := range block.Except {
			warnings = append(warnings, validation.GetWarningsForCIDR(path.Child("except").Index(i), except)...)
		}
	})
	return warnings
}
