package apiserver

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/control/auth/node"
)

const byClaimRef = "claimRef"

// nodeVolumes tells the node authorizer which volumes are whose.
func nodeVolumes(factory informers.SharedInformerFactory) (node.Volumes, error) {
	volumes, attachments := factory.Core().V1().PersistentVolumes(), factory.Storage().V1().VolumeAttachments()
	indexer := volumes.Informer().GetIndexer()
	if err := volumes.Informer().AddIndexers(cache.Indexers{byClaimRef: func(object any) ([]string, error) {
		if volume, ok := object.(*corev1.PersistentVolume); ok && volume.Spec.ClaimRef != nil {
			return []string{volume.Spec.ClaimRef.Namespace + "/" + volume.Spec.ClaimRef.Name}, nil
		}
		return nil, nil
	}}); err != nil {
		return node.Volumes{}, fmt.Errorf("index volumes by claim: %w", err)
	}
	return node.Volumes{
		OfClaim: func(namespace, claim string) []*corev1.PersistentVolume {
			// The index exists: it was made above.
			objects, _ := indexer.ByIndex(byClaimRef, namespace+"/"+claim)
			var found []*corev1.PersistentVolume
			for _, object := range objects {
				if volume, ok := object.(*corev1.PersistentVolume); ok {
					found = append(found, volume)
				}
			}
			return found
		},
		Volume: func(name string) *corev1.PersistentVolume {
			volume, err := volumes.Lister().Get(name)
			if err != nil {
				return nil
			}
			return volume
		},
		Attachment: func(name string) *storagev1.VolumeAttachment {
			attachment, err := attachments.Lister().Get(name)
			if err != nil {
				return nil
			}
			return attachment
		},
	}, nil
}
