"""Files under the data root: private, whole, durable. What is in them is others' business."""
