package apps

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/scheme"
	"github.com/skiff-run/skiff/control/storage"
	"github.com/skiff-run/skiff/control/storage/cached"
	"github.com/skiff-run/skiff/raftstore"
)

func TestADeploymentOnARealStore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(request.WithNamespace(context.Background(), "default"), time.Minute)
	t.Cleanup(cancel)
	store, err := raftstore.Open(ctx, raftstore.Options{Dir: t.TempDir(), MemberID: "one", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s, err := scheme.New()
	if err != nil {
		t.Fatal(err)
	}
	group, err := Group(&registry.Dependencies{Scheme: s, RESTOptions: &storage.Options{Store: store, Hub: cached.NewHub(store), Scheme: s.Scheme, Codecs: s.Codecs}})
	if err != nil {
		t.Fatal(err)
	}
	storages := group.Versions["v1"]
	t.Cleanup(func() {
		storages["deployments"].Destroy()
		storages["replicasets"].Destroy()
	})

	created := deployment(t, "replicas: 3, "+good)
	created.UID, created.ResourceVersion = "", ""
	if _, err := storages["deployments"].(rest.Creater).Create(ctx, created, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	update := func(path string, change func(runtime.Object)) (runtime.Object, error) {
		info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
			object := old.DeepCopyObject()
			change(object)
			return object, nil
		})
		object, _, err := storages[path].(rest.Updater).Update(ctx, "web", info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
		return object, err
	}

	object, err := update("deployments/status", func(o runtime.Object) {
		d := o.(*appsv1.Deployment)
		d.Status.Replicas, d.Annotations, d.Labels = 3, map[string]string{"deployment.kubernetes.io/revision": "1"}, map[string]string{"reported": "yes"}
		*d.Spec.Replicas = 9
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := object.(*appsv1.Deployment); *d.Spec.Replicas != 3 || d.Status.Replicas != 3 || d.Annotations["deployment.kubernetes.io/revision"] != "1" || d.Labels != nil || d.Generation != 1 {
		t.Errorf("after the status the deployment is %+v", d)
	}
	object, err = update("deployments/scale", func(o runtime.Object) { o.(*autoscalingv1.Scale).Spec.Replicas = 5 })
	if err != nil {
		t.Fatal(err)
	}
	if scaled := object.(*autoscalingv1.Scale); scaled.Spec.Replicas != 5 || scaled.Status.Replicas != 3 || scaled.Status.Selector != "app=web" {
		t.Errorf("scale is %+v", scaled)
	}
	if _, err := update("deployments/scale", func(o runtime.Object) { o.(*autoscalingv1.Scale).Spec.Replicas = -1 }); !apierrors.IsInvalid(err) {
		t.Errorf("negative scale: %v, want Invalid", err)
	}
	object, err = storages["deployments"].(rest.Getter).Get(ctx, "web", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := object.(*appsv1.Deployment); *d.Spec.Replicas != 5 || d.Generation != 2 {
		t.Errorf("after scaling there are %d replicas in generation %d, want 5 in 2", *d.Spec.Replicas, d.Generation)
	}
	if _, err := update("deployments", func(o runtime.Object) {
		d := o.(*appsv1.Deployment)
		d.Spec.Selector.MatchLabels["app"], d.Spec.Template.Labels["app"] = "api", "api"
	}); !apierrors.IsInvalid(err) {
		t.Errorf("another selector: %v, want Invalid", err)
	}
}
