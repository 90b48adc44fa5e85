package image

import (
	"slices"

	"github.com/moby/moby/api/types/image"
)

// History tells how an image came about, the latest step first. Steps that
// made no layer are of size 0.
func (s *Store) History(ref string) ([]image.HistoryResponseItem, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	i := s.named(found)
	layers := i.Spec.RootFS.DiffIDs
	items := []image.HistoryResponseItem{}
	for _, step := range i.Spec.History {
		item := image.HistoryResponseItem{ID: "<missing>", Comment: step.Comment, CreatedBy: step.CreatedBy}
		if step.Created != nil {
			item.Created = step.Created.Unix()
		}
		if !step.EmptyLayer && len(layers) > 0 {
			item.Size = s.layers[layers[0]].Size
			layers = layers[1:]
		}
		items = append(items, item)
	}
	slices.Reverse(items)
	if len(items) == 0 {
		items = append(items, image.HistoryResponseItem{Created: i.Created().Unix(), Size: i.Size})
	}
	items[0].ID, items[0].Tags = string(i.ID), i.Tags
	for n, parent := 1, s.images[i.Parent]; parent != nil && n < len(items); n, parent = n+1, s.images[parent.Parent] {
		items[n].ID, items[n].Tags = string(parent.ID), s.named(parent).Tags
	}
	return items, nil
}
