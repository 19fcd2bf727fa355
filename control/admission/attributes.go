package admission

import (
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
)

// attributes are a request as the pod security library reads it.
type attributes struct{ admission.Attributes }

// GetNamespace implements api.Attributes.
func (a attributes) GetNamespace() string { return a.Attributes.GetNamespace() }

// GetOperation implements api.Attributes.
func (a attributes) GetOperation() admissionv1.Operation {
	return admissionv1.Operation(a.Attributes.GetOperation())
}

// GetResource implements api.Attributes.
func (a attributes) GetResource() schema.GroupVersionResource { return a.Attributes.GetResource() }

// GetObject implements api.Attributes.
func (a attributes) GetObject() (runtime.Object, error) { return a.Attributes.GetObject(), nil }

// GetOldObject implements api.Attributes.
func (a attributes) GetOldObject() (runtime.Object, error) { return a.Attributes.GetOldObject(), nil }

// GetUserName implements api.Attributes.
func (a attributes) GetUserName() string { return a.GetUserInfo().GetName() }
