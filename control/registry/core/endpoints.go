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
		ValidateUpdate: func(_ context.Context, e, old *corev1.Endpoints) field.ErrorList {
			return validateEndpointsUpdate(e, old)
		},
		ValidateUpdateOnly: true,
		Warnings:           func(_ context.Context, e, _ *corev1.Endpoints) []string { return endpointsWarnings(e) },
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
