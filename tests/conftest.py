"""What several test files share. Its place here also lets every test import `cases`, wherever it stands."""
