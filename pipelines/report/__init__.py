"""What a person looks at: predictions and images in, drawings out."""
