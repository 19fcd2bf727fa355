package core

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/control/registry"
)

// endpointsKind serves Endpoints, the predecessor of EndpointSlices.
func endpointsKind() registry.Kind[*corev1.Endpoints] {
	return registry.Kind[*corev1.Endpoints]{
		Version: corev1.SchemeGroupVersion, Plural: "endpoints", Singular: "endpoints", ShortNames: []string{"ep"},
		New:            func() *corev1.Endpoints { return &corev1.Endpoints{} },
		NewList:        func() runtime.Object { return &corev1.EndpointsList{} },
		CreateOnUpdate: true,
		Default: func(e *corev1.Endpoints) {
			for i := range e.Subsets {
				for j := range e.Subsets[i].Ports {
					if port := &e.Subsets[i].Ports[j]; port.Protocol == "" {
						port.Protocol = corev1.ProtocolTCP
					}
				}
			}
		},
		ValidateName: apivalidation.NameIsDNSSubdomain,
		Validate:     func(_ context.Context, e *corev1.Endpoints) field.ErrorList { return validateEndpoints(e) },
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Endpoints", "string", corev1.Endpoints{}.SwaggerDoc()["subsets"]),
			registry.AgeColumn(),
		},
		Row: func(e *corev1.Endpoints) []any {
			return []any{e.Name, formatEndpoints(e), registry.Age(e.CreationTimestamp)}
		},
	}
}

func validateEndpoints(e *corev1.Endpoints) field.ErrorList {
	var errs field.ErrorList
	for i := range e.Subsets {
		subset, path := &e.Subsets[i], field.NewPath("subsets").Index(i)
		if len(subset.Addresses) == 0 && len(subset.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(path, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range subset.Addresses {
			errs = append(errs, validateEndpointAddress(&subset.Addresses[j], path.Child("addresses").Index(j))...)
		}
		for j := range subset.NotReadyAddresses {
			errs = append(errs, validateEndpointAddress(&subset.NotReadyAddresses[j], path.Child("notReadyAddresses").Index(j))...)
		}
		for j := range subset.Ports {
			errs = append(errs, validateEndpointPort(&subset.Ports[j], len(subset.Ports) > 1, path.Child("ports").Index(j))...)
		}
	}
	return errs
}

func validateEndpointAddress(a *corev1.EndpointAddress, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, validation.IsValidIPForLegacyField(path.Child("ip"), a.IP, true, nil)...)
	if a.Hostname != "" {
		for _, message := range validation.IsDNS1123Label(a.Hostname) {
			errs = append(errs, field.Invalid(path.Child("hostname"), a.Hostname, message))
		}
	}
	if ip := net.ParseIP(a.IP); ip != nil {
		const message = "may not be %s"
		for _, bad := range []struct {
			is   bool
			what string
		}{
			{ip.IsUnspecified(), "unspecified (0.0.0.0 or ::)"}, {ip.IsLoopback(), "in the loopback range (127.0.0.0/8, ::1/128)"},
			{ip.IsLinkLocalUnicast(), "in the link-local range (169.254.0.0/16, fe80::/10)"},
			{ip.IsLinkLocalMulticast(), "in the link-local multicast range (224.0.0.0/24, ff02::/10)"},
		} {
			if bad.is {
				errs = append(errs, field.Invalid(path.Child("ip"), a.IP, fmt.Sprintf(message, bad.what)))
			}
		}
	}
	return errs
}

func validateEndpointPort(p *corev1.EndpointPort, named bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if named && p.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else if p.Name != "" {
		for _, message := range validation.IsDNS1123Label(p.Name) {
			errs = append(errs, field.Invalid(path.Child("name"), p.Name, message))
		}
	}
	for _, message := range validation.IsValidPortNum(int(p.Port)) {
		errs = append(errs, field.Invalid(path.Child("port"), p.Port, message))
	}
	switch p.Protocol {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	case "":
		errs = append(errs, field.Required(path.Child("protocol"), ""))
	default:
		errs = append(errs, field.NotSupported(path.Child("protocol"), p.Protocol, []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}))
	}
	return errs
}

// formatEndpoints lists the first three ready endpoints, as kubectl always has.
func formatEndpoints(e *corev1.Endpoints) string {
	if len(e.Subsets) == 0 {
		return "<none>"
	}
	const shown = 3
	var list []string
	total := 0
	for _, subset := range e.Subsets {
		ports := subset.Ports
		if len(ports) == 0 {
			for _, address := range subset.Addresses {
				if total++; total <= shown {
					list = append(list, address.IP)
				}
			}
			continue
		}
		for _, port := range ports {
			for _, address := range subset.Addresses {
				if total++; total <= shown {
					list = append(list, net.JoinHostPort(address.IP, strconv.Itoa(int(port.Port))))
				}
			}
		}
	}
	text := strings.Join(list, ",")
	if total > shown {
		return fmt.Sprintf("%s + %d more...", text, total-shown)
	}
	return text
}

func addEndpoints(deps *registry.Dependencies, storages registry.Storages) error {
	_, own, err := registry.Build(deps, endpointsKind())
	if err != nil {
		return err
	}
	storages.Add(own)
	return nil
}
