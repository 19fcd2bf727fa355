package networking

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// policyValidation is what an update may keep although it would be refused today.
type policyValidation struct {
	selectors metav1validation.LabelSelectorValidationOptions
	// ranges are those that the stored policy has anywhere: rules and peers may
	// have moved, so one cannot tell which is which.
	ranges []string
}

// validateNetworkPolicy checks a policy; old is nil for a new one.
func validateNetworkPolicy(p, old *networkingv1.NetworkPolicy) field.ErrorList {
	var v policyValidation
	if old != nil {
		v.selectors.AllowInvalidLabelValueInSelector = len(metav1validation.ValidateLabelSelector(&old.Spec.PodSelector, v.selectors, nil)) > 0
		eachBlock(old, func(block *networkingv1.IPBlock, _ *field.Path) {
			v.ranges = append(append(v.ranges, block.CIDR), block.Except...)
		})
	}
	return v.spec(&p.Spec, field.NewPath("spec"))
}

func (v *policyValidation) spec(spec *networkingv1.NetworkPolicySpec, path *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabelSelector(&spec.PodSelector, v.selectors, path.Child("podSelector"))
	for i, rule := range spec.Ingress {
		at := path.Child("ingress").Index(i)
		errs = append(append(errs, validatePorts(rule.Ports, at.Child("ports"))...), v.peers(rule.From, at.Child("from"))...)
	}
	for i, rule := range spec.Egress {
		at := path.Child("egress").Index(i)
		errs = append(append(errs, validatePorts(rule.Ports, at.Child("ports"))...), v.peers(rule.To, at.Child("to"))...)
	}
	types := path.Child("policyTypes")
	if len(spec.PolicyTypes) > 2 {
		return append(errs, field.Invalid(types, &spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range spec.PolicyTypes {
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			errs = append(errs, field.NotSupported(types.Index(i), t, []string{string(networkingv1.PolicyTypeIngress), string(networkingv1.PolicyTypeEgress)}))
		}
	}
	return errs
}

func validatePorts(ports []networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range ports {
		errs = append(errs, validatePort(&ports[i], path.Index(i))...)
	}
	return errs
}

func validatePort(port *networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if port.Protocol != nil {
		switch *port.Protocol {
		case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		default:
			errs = append(errs, field.NotSupported(path.Child("protocol"), *port.Protocol, []string{"TCP", "UDP", "SCTP"}))
		}
	}
	end := path.Child("endPort")
	switch {
	case port.Port == nil:
		if port.EndPort != nil {
			errs = append(errs, field.Invalid(end, *port.EndPort, "may not be specified when `port` is not specified"))
		}
	case port.Port.Type == intstr.Int:
		errs = append(errs, invalid(path.Child("port"), port.Port.IntVal, validation.IsValidPortNum(int(port.Port.IntVal)))...)
		if port.EndPort != nil {
			if *port.EndPort < port.Port.IntVal {
				errs = append(errs, field.Invalid(end, *port.EndPort, "must be greater than or equal to `port`"))
			}
			errs = append(errs, invalid(end, *port.EndPort, validation.IsValidPortNum(int(*port.EndPort)))...)
		}
	default:
		if port.EndPort != nil {
			errs = append(errs, field.Invalid(end, *port.EndPort, "may not be specified when `port` is non-numeric"))
		}
		errs = append(errs, invalid(path.Child("port"), port.Port.StrVal, validation.IsValidPortName(port.Port.StrVal))...)
	}
	return errs
}

func (v *policyValidation) peers(peers []networkingv1.NetworkPolicyPeer, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range peers {
		peer, at := &peers[i], path.Index(i)
		count := 0
		if peer.PodSelector != nil {
			count++
			errs = append(errs, metav1validation.ValidateLabelSelector(peer.PodSelector, v.selectors, at.Child("podSelector"))...)
		}
		if peer.NamespaceSelector != nil {
			count++
			errs = append(errs, metav1validation.ValidateLabelSelector(peer.NamespaceSelector, v.selectors, at.Child("namespaceSelector"))...)
		}
		if peer.IPBlock != nil {
			count++
			errs = append(errs, v.block(peer.IPBlock, at.Child("ipBlock"))...)
		}
		switch {
		case count == 0:
			errs = append(errs, field.Required(at, "must specify a peer"))
		case count > 1 && peer.IPBlock != nil:
			errs = append(errs, field.Forbidden(at, "may not specify both ipBlock and another peer"))
		}
	}
	return errs
}

func (v *policyValidation) block(block *networkingv1.IPBlock, path *field.Path) field.ErrorList {
	if block.CIDR == "" {
		return field.ErrorList{field.Required(path.Child("cidr"), "")}
	}
	errs := validation.IsValidCIDRForLegacyField(path.Child("cidr"), block.CIDR, true, v.ranges)
	_, whole, err := netutils.ParseCIDRSloppy(block.CIDR)
	if err != nil {
		return errs // told already
	}
	length, _ := whole.Mask.Size()
	for i, text := range block.Except {
		at := path.Child("except").Index(i)
		errs = append(errs, validation.IsValidCIDRForLegacyField(at, text, true, v.ranges)...)
		_, except, err := netutils.ParseCIDRSloppy(text)
		if err != nil {
			continue
		}
		if own, _ := except.Mask.Size(); !whole.Contains(except.IP) || length >= own {
			errs = append(errs, field.Invalid(at, text, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

func invalid(path *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, message := range messages {
		errs = append(errs, field.Invalid(path, value, message))
	}
	return errs
}
