package scheme

import (
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// selectable are the fields, beyond metadata.name and metadata.namespace, that
// field selectors of a kind may name.
var selectable = map[schema.GroupVersionKind][]string{
	corev1.SchemeGroupVersion.WithKind("Pod"): {
		"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
		"status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
	},
	corev1.SchemeGroupVersion.WithKind("Node"):      {"spec.unschedulable"},
	corev1.SchemeGroupVersion.WithKind("Namespace"): {"status.phase"},
	corev1.SchemeGroupVersion.WithKind("Secret"):    {"type"},
	corev1.SchemeGroupVersion.WithKind("Service"):   {"spec.clusterIP", "spec.type"},
	corev1.SchemeGroupVersion.WithKind("Event"): {
		"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
		"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
		"reason", "reportingComponent", "source", "type",
	},
	certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"): {"spec.signerName"},
	certificatesv1.SchemeGroupVersion.WithKind("ClusterTrustBundle"):        {"spec.signerName"},
}

// eventNames maps the names that events.k8s.io has for the core group's fields.
var eventNames = map[string]string{
	"regarding.kind": "involvedObject.kind", "regarding.namespace": "involvedObject.namespace", "regarding.name": "involvedObject.name",
	"regarding.uid": "involvedObject.uid", "regarding.apiVersion": "involvedObject.apiVersion",
	"regarding.resourceVersion": "involvedObject.resourceVersion", "regarding.fieldPath": "involvedObject.fieldPath",
	"reason": "reason", "reportingController": "reportingComponent", "type": "type",
}

func addFieldLabels(s *runtime.Scheme) error {
	for gvk, names := range selectable {
		if err := s.AddFieldLabelConversionFunc(gvk, func(label, value string) (string, string, error) {
			// Old clients ask for nodes by spec.host.
			if label == "spec.host" && gvk.Kind == "Pod" {
				return "spec.nodeName", value, nil
			}
			if label == "metadata.name" || label == "metadata.namespace" || slices.Contains(names, label) {
				return label, value, nil
			}
			return "", "", fmt.Errorf("field label not supported: %s", label)
		}); err != nil {
			return fmt.Errorf("register field labels of %s: %w", gvk.Kind, err)
		}
	}
	return s.AddFieldLabelConversionFunc(eventsv1.SchemeGroupVersion.WithKind("Event"), func(label, value string) (string, string, error) {
		if label == "metadata.name" || label == "metadata.namespace" {
			return label, value, nil
		}
		if mapped, known := eventNames[label]; known {
			return mapped, value, nil
		}
		return "", "", fmt.Errorf("field label not supported: %s", label)
	})
}
