package apps

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
)

func deploymentScale() *scale[*appsv1.Deployment] {
	return newScale(nil, scaled[*appsv1.Deployment]{
		resource: "deployments",
		replicas: func(d *appsv1.Deployment) *int32 { setIfNil(&d.Spec.Replicas, 1); return d.Spec.Replicas },
		current:  func(d *appsv1.Deployment) int32 { return d.Status.Replicas },
		selector: func(d *appsv1.Deployment) *metav1.LabelSelector { return d.Spec.Selector },
	})
}

// change is a request that changes the scale it is given.
func change(f func(*autoscalingv1.Scale)) rest.UpdatedObjectInfo {
	return rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		s := old.DeepCopyObject().(*autoscalingv1.Scale)
		f(s)
		return s, nil
	})
}

func TestTheScaleOfADeployment(t *testing.T) {
	t.Parallel()
	d := deployment(t, "replicas: 3, "+good)
	d.Status.Replicas = 2
	got, err := deploymentScale().from(d)
	if err != nil {
		t.Fatal(err)
	}
	want := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "1", ResourceVersion: "1"},
		Spec:       autoscalingv1.ScaleSpec{Replicas: 3},
		Status:     autoscalingv1.ScaleStatus{Replicas: 2, Selector: "app=web"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("scale (-want +got):\n%s", diff)
	}
}

func TestScalingADeployment(t *testing.T) {
	t.Parallel()
	d := deployment(t, "replicas: 3, "+good)
	update := func(f func(*autoscalingv1.Scale)) (runtime.Object, error) {
		return (&scaleUpdate[*appsv1.Deployment]{scale: deploymentScale(), name: "web", request: change(f)}).UpdatedObject(context.Background(), d)
	}
	object, err := update(func(s *autoscalingv1.Scale) { s.Spec.Replicas = 5; s.Labels = map[string]string{"ignored": "yes"} })
	if err != nil {
		t.Fatal(err)
	}
	want := deployment(t, "replicas: 5, "+good)
	if diff := cmp.Diff(want, object); diff != "" {
		t.Errorf("deployment (-want +got):\n%s", diff)
	}
	if *d.Spec.Replicas != 3 {
		t.Error("the old deployment, which others read, was changed")
	}
	if _, err := update(func(s *autoscalingv1.Scale) { s.Spec.Replicas = -1 }); !apierrors.IsInvalid(err) {
		t.Errorf("a negative number: error is %v, want Invalid", err)
	} else if want := `Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0`; err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	if _, err := update(func(s *autoscalingv1.Scale) { s.UID = "2" }); !apierrors.IsConflict(err) {
		t.Errorf("another object's uid: error is %v, want Conflict", err)
	}
}

func TestWhatIsNotThereCannotBeScaled(t *testing.T) {
	t.Parallel()
	update := &scaleUpdate[*appsv1.Deployment]{scale: deploymentScale(), name: "web", request: change(func(*autoscalingv1.Scale) {})}
	if _, err := update.UpdatedObject(context.Background(), &appsv1.Deployment{}); !apierrors.IsNotFound(err) {
		t.Errorf("error is %v, want NotFound", err)
	}
}
