package admission

import (
	"cmp"
	"context"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	networkinglisters "k8s.io/client-go/listers/networking/v1"

	"github.com/skiff-run/skiff/control/registry/networking"
)

// defaultIngressClass gives Ingresses without a class the default one
// (Kubernetes' plugin DefaultIngressClass).
type defaultIngressClass struct {
	operations
	classes networkinglisters.IngressClassLister
	synced  func() bool
}

func newDefaultIngressClass(c Config) *defaultIngressClass {
	informer := c.Informers.Networking().V1().IngressClasses()
	return &defaultIngressClass{on(admission.Create), informer.Lister(), informer.Informer().HasSynced}
}

// Admit implements admission.MutationInterface.
func (d *defaultIngressClass) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	ingress, ok := a.GetObject().(*networkingv1.Ingress)
	if !ok || !concerns(a, networkingv1.GroupName, "ingresses") || ingress.Spec.IngressClassName != nil {
		return nil
	}
	if _, annotated := ingress.Annotations[networking.ClassAnnotation]; annotated {
		return nil
	}
	if err := ready(ctx, a, d.synced); err != nil {
		return err
	}
	classes, err := d.classes.List(labels.Everything())
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	classes = slices.DeleteFunc(slices.Clone(classes), func(c *networkingv1.IngressClass) bool { return !networking.IsDefaultClass(c) })
	if len(classes) == 0 {
		return nil
	}
	// Of several the newest, of equally new ones the first by name.
	newest := slices.MinFunc(classes, func(x, y *networkingv1.IngressClass) int {
		return cmp.Or(y.CreationTimestamp.Compare(x.CreationTimestamp.Time), cmp.Compare(x.Name, y.Name))
	})
	name := newest.Name
	ingress.Spec.IngressClassName = &name
	return nil
}
